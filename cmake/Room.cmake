# A room is one folder of src/: one static library, named runahead_<room>.
#   runahead_room(NAME SOURCES a.cc ... DEPENDS base tensor ... LIBRARIES PkgConfig::x ... PRIVATE_LIBRARIES CUDA::y ...)
# DEPENDS names every room that it uses, all of them above it in src/CMakeLists.txt, and it sees no other: the headers of a
# room are found through a folder of the build that holds nothing but a link to it, named only by those that depend on it. The options of
# PRIVATE_LIBRARIES reach this room alone: with CUDA the others compile as without it, and ccache has their objects. A room whose
# options are not those of base names the headers that it parses once for itself in PRECOMPILE.
function(runahead_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS;LIBRARIES;PRIVATE_LIBRARIES;PRECOMPILE" ${ARGN})
  set(door ${PROJECT_BINARY_DIR}/rooms/${name})
  file(MAKE_DIRECTORY ${door})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${door}/${name} SYMBOLIC)
  add_library(runahead_${name} STATIC ${ROOM_SOURCES})
  target_include_directories(runahead_${name} PUBLIC ${door} ${PROJECT_SOURCE_DIR}/include)
  if(CMAKE_UNITY_BUILD)  # GCC takes a joined source for a header, whose types must not be of its own
    target_compile_options(runahead_${name} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
  endif()
  runahead_rooms(rooms ${ROOM_DEPENDS})
  set_target_properties(runahead_${name} PROPERTIES RUNAHEAD_DEPENDS "${rooms}")
  target_link_libraries(runahead_${name} PUBLIC ${ROOM_LIBRARIES} PRIVATE ${ROOM_PRIVATE_LIBRARIES} ${rooms} runahead_flags)
  if(name STREQUAL base OR ROOM_PRECOMPILE)
    runahead_precompile(runahead_${name} ${ROOM_PRECOMPILE})
  elseif(rooms)
    runahead_precompiled_as(runahead_base runahead_${name})
  endif()
endfunction()

# The room has kernels for several processors, those of the sources named in templates that are slow to compile.
#   runahead_vector_kernels(ops a.cc ...)
function(runahead_vector_kernels room)
  set(target runahead_${room})
  # Kernels of several processors have the same names and options of their own: they are never joined.
  set_target_properties(${target} PROPERTIES UNITY_BUILD OFF)
  # Products and sums are fused where the code says so, nowhere else: the same sum has the same bits in every kernel.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
  if(RUNAHEAD_SANITIZE)
    target_compile_options(${target} PRIVATE -O1)  # where tests spend their time
    set_target_properties(${target} PROPERTIES DISABLE_PRECOMPILE_HEADERS ON)
  endif()
  if(RUNAHEAD_SANITIZE MATCHES undefined)
    # Vector templates for every processor: minutes of compilation each under this sanitizer.
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS -fno-sanitize=undefined SKIP_PRECOMPILE_HEADERS ON)
  endif()
  # Each kind of vector instructions is compiled anew, and slowly, and a processor runs its newest: the sanitizers see those
  # of processors made now, of AVX2 and of none.
  if(RUNAHEAD_SANITIZE AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_definitions(${target} PRIVATE "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4|HWY_AVX3|HWY_AVX3_DL)")
  endif()
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    # Vectors without a size at compile time cannot stand in arrays, as the kernels' sums do: NEON serves these.
    target_compile_definitions(${target} PRIVATE "HWY_DISABLED_TARGETS=(HWY_SVE|HWY_SVE2|HWY_SVE_256|HWY_SVE2_128)")
  endif()
endfunction()

# The libraries of these rooms, which exist already.
function(runahead_rooms out)
  list(TRANSFORM ARGN PREPEND runahead_ OUTPUT_VARIABLE rooms)
  foreach(room IN LISTS rooms)
    if(NOT TARGET ${room})
      message(FATAL_ERROR "${CMAKE_CURRENT_SOURCE_DIR}: ${room} is no room above it in src/CMakeLists.txt")
    endif()
  endforeach()
  set(${out} ${rooms} PARENT_SCOPE)
endfunction()

# The headers that most files include are parsed once for all targets that are compiled with the same options: TARGET does
# it, the others REUSE what it has. The sources include all that they use nevertheless: `make lint` reads them without.
#   runahead_precompile(TARGET <more> ...)
function(runahead_precompile target)
  if(RUNAHEAD_FUZZ)
    return()  # small, and of another compiler
  endif()
  target_precompile_headers(${target} PRIVATE
    <algorithm> <array> <chrono> <cmath> <cstdint> <filesystem> <functional> <map> <memory> <numeric> <optional> <random>
    <set> <span> <string> <string_view> <thread> <utility> <vector> <fmt/format.h> <fmt/ranges.h> ${ARGN})
  runahead_precompiled_for_ccache(${target})
endfunction()

#   runahead_precompiled_as(OWNER TARGET)
function(runahead_precompiled_as owner target)
  if(NOT RUNAHEAD_FUZZ)
    target_precompile_headers(${target} REUSE_FROM ${owner})
    runahead_precompiled_for_ccache(${target})
  endif()
endfunction()

# Without the option GCC preprocesses precompiled headers anew, and ccache, which asks for it, gains nothing.
function(runahead_precompiled_for_ccache target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endfunction()

# How all of our own code is compiled.
add_library(runahead_flags INTERFACE)
target_compile_options(runahead_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wnon-virtual-dtor;-Werror=return-type>)
if(RUNAHEAD_SANITIZE)
  add_compile_options(-fsanitize=${RUNAHEAD_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${RUNAHEAD_SANITIZE})
endif()

# Code that is never hot (tests, the command line) is optimised less, which halves its build time.
add_library(runahead_cold INTERFACE)
target_link_libraries(runahead_cold INTERFACE runahead_flags)
target_compile_options(runahead_cold INTERFACE $<$<CONFIG:Release>:-O1>)

# Tests see no measurements of the user's: with them `auto` may take other ranks.
set(RUNAHEAD_TEST_ENVIRONMENT "XDG_CACHE_HOME=${PROJECT_BINARY_DIR}/no-measurements")

# A test program: tests/<room>/<name>.cc against the libraries it names; of a room it sees what the room sees. LABELS: "ranks"
# for what runs several ranks, "slow" for what a sanitizer run leaves out.
#   runahead_test(NAME DEPENDS plan LABELS ranks)
function(runahead_test name)
  cmake_parse_arguments(TEST "" "" "DEPENDS;LIBRARIES;LABELS" ${ARGN})
  add_executable(${name} ${name}.cc)
  runahead_rooms(rooms ${TEST_DEPENDS})
  foreach(room IN LISTS rooms)
    get_target_property(seen ${room} RUNAHEAD_DEPENDS)
    if(seen)
      target_link_libraries(${name} PRIVATE ${seen})
    endif()
  endforeach()
  target_link_libraries(${name} PRIVATE ${rooms} ${TEST_LIBRARIES} runahead_testing runahead_cold)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  runahead_precompiled_as(runahead_testing ${name})
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 300 ENVIRONMENT "${RUNAHEAD_TEST_ENVIRONMENT}" LABELS "${TEST_LABELS}")
endfunction()

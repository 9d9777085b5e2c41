# A room is one folder of src/: one static library, named runahead_<room>.
#   runahead_room(NAME SOURCES a.cc ... DEPENDS base tensor ... LIBRARIES PkgConfig::x ...)
function(runahead_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
  add_library(runahead_${name} STATIC ${ROOM_SOURCES})
  target_include_directories(runahead_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  list(TRANSFORM ROOM_DEPENDS PREPEND runahead_)
  target_link_libraries(runahead_${name} PUBLIC ${ROOM_DEPENDS} ${ROOM_LIBRARIES} PRIVATE runahead_flags)
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

# A test program: tests/<room>/<name>.cc against the libraries it names. LABELS: "ranks" for what runs several ranks, "slow" for
# what a sanitizer run leaves out.
#   runahead_test(NAME DEPENDS plan LABELS ranks)
function(runahead_test name)
  cmake_parse_arguments(TEST "" "" "DEPENDS;LIBRARIES;LABELS" ${ARGN})
  add_executable(${name} ${name}.cc)
  list(TRANSFORM TEST_DEPENDS PREPEND runahead_)
  target_link_libraries(${name} PRIVATE ${TEST_DEPENDS} ${TEST_LIBRARIES} runahead_cold GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE RUNAHEAD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${name} PROPERTIES TIMEOUT 300 LABELS "${TEST_LABELS}" DISCOVERY_TIMEOUT 60)
endfunction()

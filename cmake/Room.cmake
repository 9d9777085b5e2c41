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
target_compile_options(runahead_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror=return-type)
if(RUNAHEAD_SANITIZE)
  add_compile_options(-fsanitize=${RUNAHEAD_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${RUNAHEAD_SANITIZE})
endif()

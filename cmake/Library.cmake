# The library that others link: all rooms in one shared object that shows the public API alone, with its version and soname.
# Until 1.0 each minor version may break its callers.
set(RUNAHEAD_LIBRARY_ROOMS base tensor kv ops codec model tokenizer link version plan prefill worker wire launch group store schedule engine)

list(TRANSFORM RUNAHEAD_LIBRARY_ROOMS REPLACE "(.+)" "$<TARGET_OBJECTS:runahead_\\1>" OUTPUT_VARIABLE room_objects)
add_library(runahead SHARED ${room_objects})
add_library(runahead::runahead ALIAS runahead)
target_link_libraries(runahead PRIVATE runahead_engine runahead_version)  # whose own objects are all here: for the libraries that they use
target_include_directories(runahead INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(runahead INTERFACE cxx_std_20)
target_link_options(runahead PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/exports.map)
set_target_properties(runahead PROPERTIES
  LINKER_LANGUAGE CXX
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/exports.map
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

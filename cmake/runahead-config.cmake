# find_package(runahead CONFIG): the target runahead::runahead, which asks for C++20 and for nothing else.
include(${CMAKE_CURRENT_LIST_DIR}/runahead-targets.cmake)

# Sets PAGE_SOURCES, what src/server/CMakeLists.txt compiles of the page, with the files that a browser gets as a part of
# the program. It uses the rooms `demo` and nlohmann_json.
set(PAGE_FILES
  index.html page.css chat.css monitor.css icon.svg
  main.js chat.js answer.js markdown.js documents.js prompt.js settings.js monitor.js ranks.js requests.js timeline.js api.js dom.js format.js)
set(PAGE_TABLE "")
foreach(name IN LISTS PAGE_FILES)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/${name})
  file(READ ${CMAKE_CURRENT_LIST_DIR}/${name} text)
  string(APPEND PAGE_TABLE "      {\"${name}\", R\"PAGE(${text})PAGE\"},\n")
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/page_files.cc.in ${CMAKE_CURRENT_BINARY_DIR}/page_files.cc @ONLY)
set(PAGE_SOURCES ${CMAKE_CURRENT_LIST_DIR}/page.cc ${CMAKE_CURRENT_LIST_DIR}/sample.cc ${CMAKE_CURRENT_BINARY_DIR}/page_files.cc)

# What `cmake --install` and `make package` put where: the program, the library, its headers and its CMake package.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/runahead)

install(TARGETS runahead_cli)
install(TARGETS runahead EXPORT runahead-targets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/runahead DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/runahead/models)

write_basic_package_version_file(${PROJECT_BINARY_DIR}/runahead-config-version.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT runahead-targets NAMESPACE runahead:: DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/cmake/runahead-config.cmake ${PROJECT_BINARY_DIR}/runahead-config-version.cmake
  DESTINATION ${package_dir})

# The program describes itself.
set(pages ${PROJECT_BINARY_DIR}/pages)
file(MAKE_DIRECTORY ${pages})
add_custom_command(OUTPUT ${pages}/runahead.1 ${pages}/runahead ${pages}/_runahead
  COMMAND sh -c "\"$0\" --man >runahead.1 && \"$0\" --completion bash >runahead && \"$0\" --completion zsh >_runahead"
          $<TARGET_FILE:runahead_cli>
  WORKING_DIRECTORY ${pages} DEPENDS runahead_cli COMMENT "Making the man page and completion" VERBATIM)
add_custom_target(runahead_pages ALL DEPENDS ${pages}/runahead.1)
install(FILES ${pages}/runahead.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${pages}/runahead DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${pages}/_runahead DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)

install(FILES ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/CHANGELOG.md ${PROJECT_SOURCE_DIR}/SECURITY.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs DESTINATION ${CMAKE_INSTALL_DOCDIR})

# A server of the system: the unit looks for its flags in /etc/runahead/serve.toml.
configure_file(${PROJECT_SOURCE_DIR}/packaging/runahead.service.in ${PROJECT_BINARY_DIR}/runahead.service @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/runahead.service DESTINATION lib/systemd/system)
install(FILES ${PROJECT_SOURCE_DIR}/packaging/serve.toml DESTINATION ${CMAKE_INSTALL_DOCDIR})

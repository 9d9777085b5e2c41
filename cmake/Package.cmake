# `make package`: one Debian package of all that is installed. It depends on the packages that own the shared libraries that
# it is linked with; whoever links with it needs g++ besides, and no other library's headers.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME runahead)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/package)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The authors of Runahead")
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "first token of long prompts, sooner, from several ranks")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "Runahead is an inference engine for decoder-only language models.
It spreads the prompt phase over several ranks with KV-Runahead.
This package holds the program, the shared library, its C++20 headers and its
CMake package.")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3-jinja2, libucx0")  # chat templates; links between processes
set(CPACK_DEBIAN_PACKAGE_SUGGESTS g++)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
include(CPack)

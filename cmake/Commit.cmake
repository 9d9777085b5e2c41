# Writes OUTPUT, a header with VERSION and the commit of SOURCE: git's where it is a checkout, what `git archive` left in
# commit.txt where it came as a tarball, empty elsewhere. Leaves a header alone that says so already.
#   cmake -DSOURCE=. -DVERSION=0.1.0 -DOUTPUT=build/release/generated/runahead_commit.h -P cmake/Commit.cmake
cmake_minimum_required(VERSION 3.25)
set(COMMIT "")
if(EXISTS ${SOURCE}/.git)
  execute_process(COMMAND git -c safe.directory=* -C ${SOURCE} describe --always --exclude=* --abbrev=12 --dirty
    OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
else()
  file(READ ${SOURCE}/cmake/commit.txt archived)
  if(archived MATCHES "^([0-9a-f]+)")
    string(SUBSTRING ${CMAKE_MATCH_1} 0 12 COMMIT)
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT "// Made by cmake/Commit.cmake.
#pragma once

#define RUNAHEAD_VERSION \"@VERSION@\"
#define RUNAHEAD_COMMIT \"@COMMIT@\"
")

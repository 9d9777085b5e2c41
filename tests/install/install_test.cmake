# Installs a build into a folder of its own, builds the consumer against it, and runs the example on the demo model.
#   cmake -DBUILD=$PWD/build/release -DSOURCE=$PWD -DWORK=$PWD/build/release/install_test -P tests/install/install_test.cmake
cmake_minimum_required(VERSION 3.25)
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "${command}\nended with ${status}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/install/consumer -B ${WORK}/consumer -G Ninja -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/consumer)

set(models ${WORK}/prefix/share/runahead/models)
run(${WORK}/consumer/example ${models}/demo "Arrived, the Velvet Otter of 886 tons, with linen.")
if(NOT output MATCHES "tokens on 2 ranks in")
  message(FATAL_ERROR "the example said: ${output}")
endif()
run(${WORK}/prefix/bin/runahead inspect ${models}/demo)

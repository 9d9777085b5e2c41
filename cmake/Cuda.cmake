# What the build for NVIDIA GPUs needs: the CUDA toolkit, and the headers of cuDNN and of its C++ frontend. They are looked
# for where tools/install_cuda_deps.sh puts them, in CUDNN_ROOT, in the toolkit, and among the wheels of the first python3.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 89-real 90)  # newer GPUs compile the last one's PTX when they first run it
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # cuDNN's frontend opens the same one
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that this compiler has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
find_package(CUDAToolkit REQUIRED)

find_program(RUNAHEAD_PYTHON python3)
if(RUNAHEAD_PYTHON)
  execute_process(COMMAND ${RUNAHEAD_PYTHON} -c "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    OUTPUT_VARIABLE RUNAHEAD_WHEELS OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(RUNAHEAD_CUDNN_HINTS ${CUDNN_ROOT} $ENV{CUDNN_ROOT} ${PROJECT_SOURCE_DIR}/build/cuda-deps
  ${PROJECT_SOURCE_DIR}/build/cuda-deps/nvidia/cudnn ${CUDAToolkit_INCLUDE_DIRS}/.. ${RUNAHEAD_WHEELS}/nvidia/cudnn
  ${RUNAHEAD_WHEELS})
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${RUNAHEAD_CUDNN_HINTS} PATH_SUFFIXES include)
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${RUNAHEAD_CUDNN_HINTS} PATH_SUFFIXES include)
if(NOT CUDNN_INCLUDE_DIR OR NOT CUDNN_FRONTEND_INCLUDE_DIR)
  message(FATAL_ERROR "cuDNN's headers (cudnn.h, cudnn_frontend.h) are missing: run tools/install_cuda_deps.sh, or set CUDNN_ROOT")
endif()

# The library itself is opened when a GPU is first used: programs start without it.
add_library(runahead_cudnn INTERFACE)
target_include_directories(runahead_cudnn SYSTEM INTERFACE ${CUDNN_FRONTEND_INCLUDE_DIR} ${CUDNN_INCLUDE_DIR})
target_link_libraries(runahead_cudnn INTERFACE CUDA::cudart ${CMAKE_DL_LIBS})
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDNN_INCLUDE_DIR}/.. ${RUNAHEAD_CUDNN_HINTS}
  PATH_SUFFIXES lib lib64)
if(CUDNN_LIBRARY)
  cmake_path(GET CUDNN_LIBRARY PARENT_PATH RUNAHEAD_CUDNN_DIR)
  target_link_options(runahead_cudnn INTERFACE -Wl,-rpath,${RUNAHEAD_CUDNN_DIR})
endif()

# NCCL is optional, and opened when it is first asked for.
set(RUNAHEAD_NCCL_HINTS ${NCCL_ROOT} $ENV{NCCL_ROOT} ${CUDAToolkit_INCLUDE_DIRS}/.. ${RUNAHEAD_WHEELS}/nvidia/nccl)
find_path(RUNAHEAD_NCCL_INCLUDE_DIR nccl.h HINTS ${RUNAHEAD_NCCL_HINTS} PATH_SUFFIXES include)
if(RUNAHEAD_NCCL_INCLUDE_DIR)
  add_library(runahead_nccl INTERFACE)
  target_include_directories(runahead_nccl SYSTEM INTERFACE ${RUNAHEAD_NCCL_INCLUDE_DIR})
  target_link_libraries(runahead_nccl INTERFACE CUDA::cudart ${CMAKE_DL_LIBS})
  find_library(RUNAHEAD_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${RUNAHEAD_NCCL_INCLUDE_DIR}/.. ${RUNAHEAD_NCCL_HINTS}
    PATH_SUFFIXES lib lib64)
  if(RUNAHEAD_NCCL_LIBRARY)
    cmake_path(GET RUNAHEAD_NCCL_LIBRARY PARENT_PATH RUNAHEAD_NCCL_DIR)
    target_link_options(runahead_nccl INTERFACE -Wl,-rpath,${RUNAHEAD_NCCL_DIR})
  endif()
endif()

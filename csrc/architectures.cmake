# Choose the GPU architectures that the CUDA kernels are compiled for. The first of these that names any decides:
#
#   1. the CMake variable CMAKE_CUDA_ARCHITECTURES, or the environment variable CUDAARCHS, in CMake's words: 80;90-real
#   2. the environment variable TORCH_CUDA_ARCH_LIST, as torch's own extensions read it: 8.0;9.0+PTX
#   3. the GPUs that nvidia-smi finds here
#   4. the default list, which wheels are built for
#
# An architecture that nvcc does not know is left out of 2, 3 and 4.

# There is one entry for each generation that torch's wheels for CUDA 13 run on. The machine code of one runs on the
# whole generation: that of 8.0 on 8.6 and 8.9, too. Newer GPUs take the PTX that is added to the last.
# 11.0 is Jetson Thor, whose processor is an ARM.
set(SAL_FAST_DEFAULT_ARCHITECTURES 75 80 90 100 120)
if(CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(SAL_FAST_DEFAULT_ARCHITECTURES 75 80 90 100 110 120)
endif()

# Set `result` to those of the given architectures that the compiler knows.
function(sal_fast_known_architectures result nvcc)
  set(known ${ARGN})
  execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE listed RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    string(REGEX MATCHALL "[0-9]+" listed "${listed}")
    foreach(architecture IN LISTS ARGN)
      string(REGEX MATCH "^[0-9]+" number "${architecture}")
      if(NOT number IN_LIST listed)
        list(REMOVE_ITEM known "${architecture}")
        message(STATUS "sal_fast: nvcc does not know the GPU architecture ${number}, which is left out")
      endif()
    endforeach()
  endif()
  set(${result} "${known}" PARENT_SCOPE)
endfunction()

# Set `result` to what TORCH_CUDA_ARCH_LIST names, or to nothing.
function(sal_fast_torch_architectures result)
  string(REGEX REPLACE "[ ,]+" ";" entries "$ENV{TORCH_CUDA_ARCH_LIST}")
  set(named "")
  foreach(entry IN LISTS entries)
    if(entry MATCHES "^([0-9]+)\\.([0-9][af]?)(\\+PTX)?$")
      set(kind "-real")
      if(CMAKE_MATCH_3)
        set(kind "")
      endif()
      list(APPEND named "${CMAKE_MATCH_1}${CMAKE_MATCH_2}${kind}")
    elseif(entry)
      message(WARNING "sal_fast: TORCH_CUDA_ARCH_LIST: expected numbers such as 8.0;9.0+PTX, got ${entry}, "
                      "which is left out")
    endif()
  endforeach()
  set(${result} "${named}" PARENT_SCOPE)
endfunction()

# Set `result` to the architectures of this machine's GPUs in ascending order, or to nothing.
function(sal_fast_gpu_architectures result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE answer RESULT_VARIABLE failed ERROR_QUIET TIMEOUT 60)
  set(found "")
  if(NOT failed)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" found "${answer}")
    list(TRANSFORM found REPLACE "\\." "")
    list(REMOVE_DUPLICATES found)
    list(SORT found COMPARE NATURAL)
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

# Set CMAKE_CUDA_ARCHITECTURES, and `reason` to what decided.
function(sal_fast_choose_architectures reason nvcc)
  if(CMAKE_CUDA_ARCHITECTURES)
    set(${reason} "CMAKE_CUDA_ARCHITECTURES" PARENT_SCOPE)
    return()
  elseif(NOT "$ENV{CUDAARCHS}" STREQUAL "")
    set(CMAKE_CUDA_ARCHITECTURES "$ENV{CUDAARCHS}" PARENT_SCOPE)
    set(${reason} "CUDAARCHS" PARENT_SCOPE)
    return()
  endif()
  set(why "TORCH_CUDA_ARCH_LIST")
  sal_fast_torch_architectures(chosen)
  sal_fast_known_architectures(chosen "${nvcc}" ${chosen})
  if(NOT chosen)
    set(why "the GPUs of this machine")
    sal_fast_gpu_architectures(chosen)
    sal_fast_known_architectures(chosen "${nvcc}" ${chosen})
    # The lowest gets PTX, too, so that the build runs on any newer GPU, such as those of other machines of a cluster.
    list(TRANSFORM chosen APPEND "-real")
    string(REGEX REPLACE "^([0-9]+)-real" "\\1" chosen "${chosen}")
  endif()
  if(NOT chosen)
    set(why "the default list, as no GPU is known")
    sal_fast_known_architectures(chosen "${nvcc}" ${SAL_FAST_DEFAULT_ARCHITECTURES})
    list(TRANSFORM chosen APPEND "-real")
    string(REGEX REPLACE "-real$" "" chosen "${chosen}")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "${chosen}" PARENT_SCOPE)
  set(${reason} "${why}" PARENT_SCOPE)
endfunction()

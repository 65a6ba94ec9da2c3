# Cross build for 64-bit Windows CPython with mingw-w64 (Debian: gcc-mingw-w64-x86-64-win32).
# WINPYTHON (environment): folder of a CPython for Windows with include/ and libs/python3XY.lib; ci/winlab sets it.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
# Not ONLY: FindCython is a CMake module that comes with the host's cython-cmake.
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)

# Up to 3.11 pyconfig.h sets MS_WIN64 for MSVC only. Without it everything compiles, and SIZEOF_VOID_P is 4.
set(CMAKE_C_FLAGS_INIT "-DMS_WIN64")
# At run time nothing but Windows' own DLLs and python3XY.dll; no time stamp, so that a build can be repeated.
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-static -Wl,--no-insert-timestamp")

file(TO_CMAKE_PATH "$ENV{WINPYTHON}" winpython)
file(GLOB libraries LIST_DIRECTORIES false "${winpython}/libs/python3?*.lib")
if(NOT libraries MATCHES "python3([0-9]+)\\.lib$")
  message(FATAL_ERROR "WINPYTHON='${winpython}' has no libs/python3XY.lib: run ci/winlab setup")
endif()
set(Python_INCLUDE_DIR "${winpython}/include" CACHE PATH "")
set(Python_LIBRARY "${libraries}" CACHE FILEPATH "")
set(Python_SOABI "cp3${CMAKE_MATCH_1}-win_amd64" CACHE STRING "")

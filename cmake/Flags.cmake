# SPDX-License-Identifier: Apache-2.0
#
# deputy_flags: every flag our own code is compiled and linked with.

set(DEPUTY_SANITIZE "" CACHE STRING "instrumentation: empty, asan (with UBSan), tsan or fuzz")
set_property(CACHE DEPUTY_SANITIZE PROPERTY STRINGS "" asan tsan fuzz)
option(DEPUTY_WERROR "turn warnings into errors" OFF)

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)  # -fPIE -pie for programs

add_library(deputy_flags INTERFACE)
target_include_directories(deputy_flags INTERFACE "${PROJECT_SOURCE_DIR}")
target_compile_definitions(deputy_flags INTERFACE _GNU_SOURCE)
target_compile_options(deputy_flags INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wvla -Wformat=2 -Wmissing-prototypes -Wstrict-prototypes
  $<$<BOOL:${DEPUTY_WERROR}>:-Werror>
  -Wno-format-zero-length  # log_info(id, "event", ""): an event without details
  -fno-common
  -fno-omit-frame-pointer  # perf and gdb walk the stack in every build
  -fstack-protector-strong
  # Fortify needs optimisation, and hides what ASan would rather see itself.
  $<$<CONFIG:Release,RelWithDebInfo>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>
  $<$<AND:$<CONFIG:Release,RelWithDebInfo>,$<STREQUAL:${CMAKE_SYSTEM_PROCESSOR},x86_64>>:-fstack-clash-protection>)
target_link_options(deputy_flags INTERFACE
  -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed)

set(asan_flags -fsanitize=address,undefined -fno-sanitize-recover=undefined)
if(DEPUTY_SANITIZE STREQUAL "")
  set(sanitize_flags)
elseif(DEPUTY_SANITIZE STREQUAL "asan")
  set(sanitize_flags ${asan_flags})
elseif(DEPUTY_SANITIZE STREQUAL "tsan")
  set(sanitize_flags -fsanitize=thread)
elseif(DEPUTY_SANITIZE STREQUAL "fuzz")
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "libFuzzer needs Clang, not ${CMAKE_C_COMPILER_ID}.\n"
                        "Remedy: cmake --preset fuzz (it sets CMAKE_C_COMPILER=clang)")
  endif()
  set(sanitize_flags ${asan_flags} -fsanitize=fuzzer-no-link)
else()
  message(FATAL_ERROR "DEPUTY_SANITIZE=${DEPUTY_SANITIZE}: must be empty, asan, tsan or fuzz")
endif()
target_compile_options(deputy_flags INTERFACE ${sanitize_flags})
target_link_options(deputy_flags INTERFACE ${sanitize_flags})

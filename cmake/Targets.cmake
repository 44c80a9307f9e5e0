# SPDX-License-Identifier: Apache-2.0
#
# What the folders' CMakeLists.txt call. Includes start at the repository's
# root (`#include "common/base/status.h"`); executables go to <build>/bin.
#
#   deputy_add_folder(DIR)                            add_subdirectory, if there
#   deputy_add_library(NAME SOURCES ... DEPS ...)     a static library
#   deputy_add_program(NAME SOURCES ... DEPS ...)     an installed program, and
#                                                     the test symbols.NAME
#   deputy_add_unit_test(NAME SOURCES ... DEPS ...)   cmocka; the test unit.NAME
#   deputy_add_fuzz_target(NAME SOURCES ... DEPS ...) libFuzzer, or a replay of
#                                                     its corpus; fuzz.NAME
#   deputy_add_e2e_tests([FILES ...] [TIMEOUT s])     pytest; e2e.FILE for each
#
# NAME of a test or fuzz target need not be unique among libraries and programs:
# the executables are bin/unit_NAME and bin/fuzz_NAME. DEPS may name other
# targets, also such as are added later; unit tests take DEFINITIONS and
# TIMEOUT too.

set(DEPUTY_TESTS_DIR "${PROJECT_SOURCE_DIR}/tests")

# What the sanitizers are told in every test. A finding ends the process with a
# status no program uses by itself, so that end-to-end tests can tell.
set(deputy_test_environment
  "ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=66:detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1"
  "LSAN_OPTIONS=exitcode=66:print_suppressions=0:suppressions=${DEPUTY_TESTS_DIR}/sanitizers/lsan.supp"
  "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:exitcode=66"
  "TSAN_OPTIONS=halt_on_error=0:exitcode=66:second_deadlock_stack=1:history_size=4:suppressions=${DEPUTY_TESTS_DIR}/sanitizers/tsan.supp"
  "CMOCKA_TEST_ABORT=0"
  "DEPUTY_BIN_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}"
  "DEPUTY_SOURCE_DIR=${PROJECT_SOURCE_DIR}"
  "DEPUTY_SANITIZE=${DEPUTY_SANITIZE}"
  "PYTHONDONTWRITEBYTECODE=1")

# ThreadSanitizer of this age dies when the kernel scatters mappings by more
# than 28 bits. setarch -R switches that off for a test and its children.
set(deputy_test_launcher)
if(DEPUTY_SANITIZE STREQUAL "tsan" AND EXISTS "/proc/sys/vm/mmap_rnd_bits")
  file(READ "/proc/sys/vm/mmap_rnd_bits" rnd_bits)
  string(STRIP "${rnd_bits}" rnd_bits)
  if(rnd_bits GREATER 28)
    set(deputy_test_launcher setarch -R)
  endif()
endif()

# Instrumented programs are slower, and so is a shared machine.
set(deputy_timeout_factor 1)
if(NOT DEPUTY_SANITIZE STREQUAL "")
  set(deputy_timeout_factor 4)
endif()

function(deputy_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT;LABEL" "COMMAND")
  add_test(NAME ${name} COMMAND ${deputy_test_launcher} ${arg_COMMAND}
           WORKING_DIRECTORY "${PROJECT_BINARY_DIR}")
  math(EXPR timeout "${arg_TIMEOUT} * ${deputy_timeout_factor}")
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${timeout}
    LABELS "${arg_LABEL}"
    ENVIRONMENT "${deputy_test_environment}"
    # nginx and ip live in sbin, which a plain user's PATH lacks.
    ENVIRONMENT_MODIFICATION "PATH=path_list_append:/usr/sbin;PATH=path_list_append:/sbin")
endfunction()

function(deputy_add_folder dir)
  if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${dir}/CMakeLists.txt")
    add_subdirectory(${dir})
  endif()
endfunction()

function(deputy_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC ${arg_DEPS} PRIVATE deputy_flags)
endfunction()

# deputy_add_executable is the part that programs and tests have in common:
# no name of a static library leaves the executable, or the OpenSSL that
# libcurl's libssh2 brings along would bind to BoringSSL's functions. Clang's
# sanitizers are static too, and libc must find their malloc: there only the two.
set(deputy_hidden_libs ALL)
if(NOT DEPUTY_SANITIZE STREQUAL "" AND CMAKE_C_COMPILER_ID MATCHES "Clang")
  set(deputy_hidden_libs libssl.a:libcrypto.a)
endif()
function(deputy_add_executable target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
  add_executable(${target} ${arg_SOURCES})
  target_link_libraries(${target} PRIVATE ${arg_DEPS} deputy_flags)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,${deputy_hidden_libs})
endfunction()

function(deputy_add_program name)
  deputy_add_executable(${name} ${ARGN})
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  if(BUILD_TESTING)
    deputy_add_test(symbols.${name} TIMEOUT 60 LABEL symbols
      COMMAND "${DEPUTY_TESTS_DIR}/symbols/no_boringssl_exports.sh" $<TARGET_FILE:${name}>
              $<TARGET_FILE:BoringSSL::ssl> $<TARGET_FILE:BoringSSL::crypto>)
  endif()
endfunction()

function(deputy_add_unit_test name)
  if(NOT BUILD_TESTING)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;DEPS;DEFINITIONS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  deputy_add_executable(unit_${name} SOURCES ${arg_SOURCES} DEPS ${arg_DEPS} Deputy::cmocka)
  target_compile_definitions(unit_${name} PRIVATE ${arg_DEFINITIONS})
  deputy_add_test(unit.${name} TIMEOUT ${arg_TIMEOUT} LABEL unit COMMAND unit_${name})
endfunction()

function(deputy_add_fuzz_target name)
  if(NOT BUILD_TESTING)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;DEPS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set(corpus "${DEPUTY_TESTS_DIR}/fuzz/corpus/${name}")
  if(DEPUTY_SANITIZE STREQUAL "fuzz")
    deputy_add_executable(fuzz_${name} SOURCES ${arg_SOURCES} DEPS ${arg_DEPS})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    # -runs=0 would pass on an empty corpus: the first argument must match.
    deputy_add_test(fuzz.${name} TIMEOUT ${arg_TIMEOUT} LABEL fuzz
      COMMAND sh -c "ls -A \"$2\" | grep -q . && exec \"$1\" -runs=0 \"$2\"" -- $<TARGET_FILE:fuzz_${name}> "${corpus}")
  else()
    deputy_add_executable(fuzz_${name}
      SOURCES ${arg_SOURCES} "${DEPUTY_TESTS_DIR}/fuzz/replay_main.c" DEPS ${arg_DEPS})
    deputy_add_test(fuzz.${name} TIMEOUT ${arg_TIMEOUT} LABEL fuzz
      COMMAND fuzz_${name} "${corpus}")
  endif()
endfunction()

# Without FILES, all test_*.py of the calling folder: a new file is found by
# itself. TIMEOUT (300 s) is for one file.
function(deputy_add_e2e_tests)
  if(NOT BUILD_TESTING OR DEPUTY_SANITIZE STREQUAL "fuzz")
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "TIMEOUT" "FILES")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(NOT arg_FILES)
    file(GLOB arg_FILES CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/test_*.py")
  endif()
  foreach(file IN LISTS arg_FILES)
    get_filename_component(path "${file}" ABSOLUTE)
    get_filename_component(stem "${file}" NAME_WE)
    string(REGEX REPLACE "^test_" "" stem "${stem}")
    deputy_add_test(e2e.${stem} TIMEOUT ${arg_TIMEOUT} LABEL e2e
      COMMAND "${DEPUTY_PYTHON}" -m pytest -p no:cacheprovider -q -x --tb=short
              --rootdir "${DEPUTY_TESTS_DIR}" "${path}")
  endforeach()
endfunction()

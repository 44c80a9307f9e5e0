# SPDX-License-Identifier: Apache-2.0
#
# Writes <build>/generated/version.h (DEPUTY_VERSION), when configuring and, as
# a script, on each build: the file changes only when the version does.

if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(DEPUTY_GENERATED_DIR "${PROJECT_BINARY_DIR}/generated")
  set(version_command "${CMAKE_COMMAND}" "-DSOURCE_DIR=${PROJECT_SOURCE_DIR}"
    "-DOUT=${DEPUTY_GENERATED_DIR}/version.h" "-DVERSION=${PROJECT_VERSION}"
    -P "${CMAKE_CURRENT_LIST_FILE}")
  execute_process(COMMAND ${version_command} COMMAND_ERROR_IS_FATAL ANY)
  add_custom_target(deputy_version COMMAND ${version_command}
    BYPRODUCTS "${DEPUTY_GENERATED_DIR}/version.h" COMMENT "" VERBATIM)
  add_dependencies(deputy_flags deputy_version)
  target_include_directories(deputy_flags INTERFACE "${DEPUTY_GENERATED_DIR}")
  return()
endif()

set(ENV{GIT_OPTIONAL_LOCKS} 0)  # reading the version must not disturb a commit
execute_process(
  COMMAND git -C "${SOURCE_DIR}" describe --tags --always --dirty
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
set(version "${VERSION}")
if(result EQUAL 0 AND NOT commit STREQUAL "" AND NOT commit STREQUAL "v${VERSION}")
  string(APPEND version " (${commit})")
endif()
file(CONFIGURE OUTPUT "${OUT}" CONTENT [[// Written by cmake/Version.cmake.
#pragma once
#define DEPUTY_VERSION "@version@"
]] @ONLY)

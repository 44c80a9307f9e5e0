# SPDX-License-Identifier: Apache-2.0
#
# What `cmake --install` puts beside the programs: units for systemd, which name
# the programs where they are installed, the users that the units run as, manuals
# and sample configurations.

set(DEPUTY_UNIT_DIR "lib/systemd/system" CACHE STRING "where units for systemd are installed")
set(DEPUTY_SYSUSERS_DIR "lib/sysusers.d" CACHE STRING "where files for systemd-sysusers are installed")

# The prefix is known when it is installed, not before (cmake --install --prefix).
install(CODE "set(deputy_units \"${PROJECT_SOURCE_DIR}/docs/examples\")
set(deputy_unit_dir \"${DEPUTY_UNIT_DIR}\")
set(deputy_bin_dir \"${CMAKE_INSTALL_BINDIR}\")")
install(CODE [[
file(GLOB units "${deputy_units}/*.service")
foreach(unit IN LISTS units)
  get_filename_component(name "${unit}" NAME)
  file(READ "${unit}" text)
  string(REPLACE "/usr/local/bin/" "${CMAKE_INSTALL_PREFIX}/${deputy_bin_dir}/" text "${text}")
  set(out "${CMAKE_INSTALL_PREFIX}/${deputy_unit_dir}/${name}")
  message(STATUS "Installing: $ENV{DESTDIR}${out}")
  file(WRITE "$ENV{DESTDIR}${out}" "${text}")
  list(APPEND CMAKE_INSTALL_MANIFEST_FILES "${out}")
endforeach()
]])
install(FILES docs/examples/deputy.sysusers DESTINATION "${DEPUTY_SYSUSERS_DIR}" RENAME deputy.conf)
install(DIRECTORY docs/examples DESTINATION "${CMAKE_INSTALL_DOCDIR}" FILES_MATCHING PATTERN "*.json")
install(DIRECTORY docs/ DESTINATION "${CMAKE_INSTALL_DOCDIR}" FILES_MATCHING PATTERN "*.md")

# SPDX-License-Identifier: Apache-2.0
#
# The other libraries, as imported targets (their headers count as SYSTEM):
#   Deputy::event    libevent core, extra, pthreads; never libevent_openssl,
#                    which is built for another TLS library
#   Deputy::curl     libcurl, GnuTLS flavour
#   Deputy::gnutls   for common/revocation/ocsp.c only: an OCSP parser
#   Deputy::jansson  Deputy::lmdb  Deputy::cmocka  Deputy::seccomp
#   Deputy::compression  brotli's encoder and zlib: certificates in compressed form
#   Deputy::idn2     deputyctl only: names with letters beyond ASCII
#   Deputy::p11kit   headers only: PKCS#11 modules are dlopened

find_package(PkgConfig REQUIRED)
set(deputy_setup_remedy "Remedy: scripts/setup installs what scripts/packages.txt lists")

# deputy_find_library(NAME PC...) makes Deputy::NAME from pkg-config modules.
function(deputy_find_library name)
  pkg_check_modules(DEPUTY_${name} QUIET IMPORTED_TARGET ${ARGN})
  if(NOT DEPUTY_${name}_FOUND)
    message(FATAL_ERROR "pkg-config does not find ${ARGN}.\n${deputy_setup_remedy}")
  endif()
  add_library(Deputy::${name} INTERFACE IMPORTED GLOBAL)
  target_link_libraries(Deputy::${name} INTERFACE PkgConfig::DEPUTY_${name})
  set_property(TARGET PkgConfig::DEPUTY_${name} PROPERTY IMPORTED_GLOBAL TRUE)
endfunction()

deputy_find_library(event libevent_core libevent_extra libevent_pthreads)
deputy_find_library(curl libcurl)
deputy_find_library(gnutls gnutls)
deputy_find_library(jansson jansson)
deputy_find_library(lmdb lmdb)
deputy_find_library(compression libbrotlienc zlib)
deputy_find_library(idn2 libidn2)
if(BUILD_TESTING)
  deputy_find_library(cmocka cmocka)
  deputy_find_library(brotlidec libbrotlidec)
endif()
deputy_find_library(seccomp libseccomp)

pkg_check_modules(DEPUTY_p11kit QUIET p11-kit-1)
if(NOT DEPUTY_p11kit_FOUND)
  message(FATAL_ERROR "pkg-config does not find p11-kit-1.\n${deputy_setup_remedy}")
endif()
add_library(Deputy::p11kit INTERFACE IMPORTED GLOBAL)
target_include_directories(Deputy::p11kit SYSTEM INTERFACE ${DEPUTY_p11kit_INCLUDE_DIRS})

# Both flavours of Debian's libcurl call their pkg-config file libcurl, so the
# library itself is asked. The OpenSSL one in a process with BoringSSL would be
# two libraries under the same names.
get_filename_component(curl_prefix_bin "${DEPUTY_curl_PREFIX}/bin" ABSOLUTE)
find_program(CURL_CONFIG curl-config HINTS "${curl_prefix_bin}")
if(NOT CURL_CONFIG)
  message(FATAL_ERROR "curl-config is missing.\n${deputy_setup_remedy}")
endif()
execute_process(COMMAND "${CURL_CONFIG}" --ssl-backends
  OUTPUT_VARIABLE curl_backends OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT curl_backends STREQUAL "GnuTLS")
  message(FATAL_ERROR
    "libcurl is not the GnuTLS flavour: ${CURL_CONFIG} --ssl-backends says '${curl_backends}'.\n"
    "Remedy: apt-get install libcurl4-gnutls-dev (it replaces libcurl4-openssl-dev), or scripts/setup")
endif()
get_target_property(curl_libs PkgConfig::DEPUTY_curl INTERFACE_LINK_LIBRARIES)
foreach(lib IN LISTS curl_libs)
  get_filename_component(curl_real "${lib}" REALPATH)
  if(curl_real MATCHES "/libcurl\\.so")
    message(FATAL_ERROR "pkg-config's libcurl is ${curl_real}, but curl-config speaks of a GnuTLS one.\n"
      "Remedy: apt-get install libcurl4-gnutls-dev, and unset PKG_CONFIG_PATH")
  endif()
endforeach()

# Tests run with Debian's Python, where its python3-* packages are; another
# python3 may come first in PATH.
set(DEPUTY_PYTHON "/usr/bin/python3" CACHE FILEPATH "the Python that runs the tests")

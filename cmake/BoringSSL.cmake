# SPDX-License-Identifier: Apache-2.0
#
# BoringSSL::ssl and BoringSSL::crypto, static, with their assembly.
#
# Without BORINGSSL_ROOT, scripts/boringssl builds (once) and names the variant
# that fits DEPUTY_SANITIZE. With it, an upstream build or install tree is used;
# a tree from before or after API version 32 will do. The configuration stops
# here rather than make a program that is insecure or slow.

set(BORINGSSL_ROOT "" CACHE PATH "a BoringSSL build or install tree (default: scripts/boringssl)")
option(DEPUTY_ALLOW_NO_ASM "accept a BoringSSL without P-256 assembly (several times slower)" OFF)

if(BORINGSSL_ROOT)
  set(boringssl_root "${BORINGSSL_ROOT}")
else()
  set(boringssl_variant "${DEPUTY_SANITIZE}")
  if(boringssl_variant STREQUAL "")
    set(boringssl_variant release)
  endif()
  execute_process(
    COMMAND "${PROJECT_SOURCE_DIR}/scripts/boringssl" ${boringssl_variant}
    OUTPUT_VARIABLE boringssl_output OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE boringssl_result)
  if(NOT boringssl_result EQUAL 0)
    message(FATAL_ERROR "scripts/boringssl ${boringssl_variant} failed (its reason is above).\n"
                        "Remedy: run it by hand, or give a BoringSSL with -DBORINGSSL_ROOT=DIR")
  endif()
  string(REGEX REPLACE ".*\n" "" boringssl_root "${boringssl_output}")
  # A new recipe means a new directory: configure again when it changes.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    "${PROJECT_SOURCE_DIR}/scripts/boringssl" "${PROJECT_SOURCE_DIR}/cmake/boringssl/CMakeLists.txt")
endif()

# The headers: of an install, of a source tree with the build below it, or of
# a build tree beside or below its source.
set(boringssl_remedy
  "Remedy: leave BORINGSSL_ROOT empty (scripts/boringssl then builds one), or let it name a"
  " BoringSSL tree with include/openssl and libssl.a, libcrypto.a in lib/, lib64/, ssl/ and"
  " crypto/, build/ or at its top.")
string(CONCAT boringssl_remedy ${boringssl_remedy})
set(boringssl_include)
foreach(dir IN ITEMS include src/include ../include)
  if(EXISTS "${boringssl_root}/${dir}/openssl/base.h")
    get_filename_component(boringssl_include "${boringssl_root}/${dir}" REALPATH)
    break()
  endif()
endforeach()
if(NOT boringssl_include)
  if(EXISTS "${boringssl_root}/include/openssl/ssl.h")
    message(FATAL_ERROR "The headers in ${boringssl_root}/include are not BoringSSL's"
                        " (openssl/base.h is missing: OpenSSL?).\n${boringssl_remedy}")
  endif()
  message(FATAL_ERROR "No BoringSSL headers below '${boringssl_root}'.\n${boringssl_remedy}")
endif()
file(STRINGS "${boringssl_include}/openssl/base.h" boringssl_is
  REGEX "^#define OPENSSL_IS_BORINGSSL")
if(NOT boringssl_is)
  message(FATAL_ERROR "The headers in ${boringssl_include} are not BoringSSL's"
                      " (no OPENSSL_IS_BORINGSSL).\n${boringssl_remedy}")
endif()
file(STRINGS "${boringssl_include}/openssl/base.h" boringssl_api
  REGEX "^#define BORINGSSL_API_VERSION [0-9]+")
string(REGEX REPLACE "[^0-9]*([0-9]+).*" "\\1" BORINGSSL_API_VERSION "${boringssl_api}")

foreach(name IN ITEMS ssl crypto)
  set(boringssl_lib_${name})
  foreach(dir IN ITEMS lib lib64 lib/${CMAKE_LIBRARY_ARCHITECTURE} . ${name} build build/${name})
    if(EXISTS "${boringssl_root}/${dir}/lib${name}.a")
      get_filename_component(boringssl_lib_${name} "${boringssl_root}/${dir}/lib${name}.a" REALPATH)
      break()
    endif()
  endforeach()
  if(NOT boringssl_lib_${name})
    message(FATAL_ERROR "No static lib${name}.a below '${boringssl_root}'.\n${boringssl_remedy}")
  endif()
endforeach()

# The archive is asked, not the flags it was built with: the assembly must be
# defined (T) and, which OPENSSL_SMALL takes away, used by the C code (U).
execute_process(
  COMMAND "${CMAKE_NM}" "${boringssl_lib_crypto}"
  OUTPUT_VARIABLE boringssl_names ERROR_QUIET RESULT_VARIABLE boringssl_result)
if(NOT boringssl_result EQUAL 0)
  message(FATAL_ERROR "${CMAKE_NM} cannot read ${boringssl_lib_crypto}.\n${boringssl_remedy}")
endif()
if(NOT (boringssl_names MATCHES " T ecp_nistz256_mul_mont" AND
        boringssl_names MATCHES " U ecp_nistz256_mul_mont") AND NOT DEPUTY_ALLOW_NO_ASM)
  message(FATAL_ERROR
    "${boringssl_lib_crypto} does not use P-256 assembly (ecp_nistz256_*): it was built with"
    " OPENSSL_SMALL or OPENSSL_NO_ASM and signs about six times slower.\n"
    "Remedy: build it without these, or leave BORINGSSL_ROOT empty (scripts/boringssl does it"
    " right), or accept the cost with -DDEPUTY_ALLOW_NO_ASM=ON")
endif()
unset(boringssl_names)

find_package(Threads REQUIRED)
add_library(BoringSSL::crypto STATIC IMPORTED)
set_target_properties(BoringSSL::crypto PROPERTIES
  IMPORTED_LOCATION "${boringssl_lib_crypto}"
  INTERFACE_INCLUDE_DIRECTORIES "${boringssl_include}"  # imported, thus -isystem
  INTERFACE_LINK_LIBRARIES Threads::Threads)
add_library(BoringSSL::ssl STATIC IMPORTED)
set_target_properties(BoringSSL::ssl PROPERTIES
  IMPORTED_LOCATION "${boringssl_lib_ssl}"
  INTERFACE_INCLUDE_DIRECTORIES "${boringssl_include}"
  INTERFACE_LINK_LIBRARIES BoringSSL::crypto)
if(BORINGSSL_API_VERSION GREATER_EQUAL 32)
  # Newer libcrypto is C++ too, and upstream builds it against the runtime.
  set_property(TARGET BoringSSL::crypto APPEND PROPERTY INTERFACE_LINK_LIBRARIES stdc++)
endif()

# All our code gets this directory, ahead of /usr/include: an <openssl/...> in
# a file whose target forgot to link BoringSSL must not find libssl-dev's.
target_include_directories(deputy_flags SYSTEM BEFORE INTERFACE "${boringssl_include}")

message(STATUS "BoringSSL: API version ${BORINGSSL_API_VERSION}, ${boringssl_lib_ssl}")

// SPDX-License-Identifier: Apache-2.0
// faulty_token: a PKCS #11 module that passes everything on to another one
// (FAULTY_TOKEN_MODULE), but does to its signatures what the first word of the file
// FAULTY_TOKEN_CONTROL says, as long as it says so:
//   hang       C_Sign does not return
//   hang_open  neither does C_OpenSession
//   wrong      one bit of the signature is another
//   short      the last byte of the signature is missing
//   empty      no byte of it is there
//   long       its length is more than there was room for
//   error HEX  C_Sign returns this
// Anything else, and no file: as the token has it. A call that hangs makes the file
// FAULTY_TOKEN_CONTROL.waits.
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_US 10000

static CK_FUNCTION_LIST ours;
static CK_FUNCTION_LIST *theirs;

static const char *read_word(char word[64]) {
  const char *path = getenv("FAULTY_TOKEN_CONTROL");
  FILE *file = path == NULL ? NULL : fopen(path, "re");
  size_t len = 0;

  if (file != NULL) {
    len = fread(word, 1, 63, file);
    (void)fclose(file);
  }
  word[len] = '\0';
  return word;
}

// That somebody hangs is told by a file beside the one that says so.
static void note_waiting(void) {
  char path[4096];
  FILE *file = NULL;
  (void)snprintf(path, sizeof(path), "%s.waits", getenv("FAULTY_TOKEN_CONTROL"));
  file = fopen(path, "we");
  if (file != NULL) {
    (void)fclose(file);
  }
}

static void wait_while(const char *wanted, const char *or_wanted) {
  char word[64];
  bool has_noted = false;
  while (strcmp(read_word(word), wanted) == 0 || strcmp(word, or_wanted) == 0) {
    if (!has_noted) {
      note_waiting();
      has_noted = true;
    }
    (void)usleep(POLL_US);
  }
}

static CK_RV faulty_open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *arg, CK_NOTIFY notify,
                                 CK_SESSION_HANDLE *out) {
  wait_while("hang_open", "hang_open");
  return theirs->C_OpenSession(slot, flags, arg, notify, out);
}

static CK_RV faulty_sign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out,
                         CK_ULONG *out_len) {
  char word[64];
  CK_RV rv = CKR_OK;

  wait_while("hang", "hang_open");
  rv = theirs->C_Sign(session, data, data_len, out, out_len);
  if (rv != CKR_OK || out == NULL) {
    return rv;
  }
  (void)read_word(word);
  if (strcmp(word, "wrong") == 0) {
    out[*out_len / 2] ^= 1;
  } else if (strcmp(word, "short") == 0) {
    *out_len -= 1;
  } else if (strcmp(word, "empty") == 0) {
    *out_len = 0;
  } else if (strcmp(word, "long") == 0) {
    *out_len = 1 << 20;
  } else if (strncmp(word, "error ", 6) == 0) {
    rv = strtoul(word + 6, NULL, 16);
  }
  return rv;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **out) {
  CK_C_GetFunctionList get = NULL;
  const char *path = getenv("FAULTY_TOKEN_MODULE");
  void *library = path == NULL ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);

  if (library == NULL) {
    return CKR_GENERAL_ERROR;
  }
  *(void **)(void *)&get = dlsym(library, "C_GetFunctionList");
  if (get == NULL || get(&theirs) != CKR_OK) {
    return CKR_GENERAL_ERROR;
  }
  ours = *theirs;
  ours.C_Sign = faulty_sign;
  ours.C_OpenSession = faulty_open_session;
  *out = &ours;
  return CKR_OK;
}

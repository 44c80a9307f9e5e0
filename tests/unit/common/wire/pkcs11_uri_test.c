// SPDX-License-Identifier: Apache-2.0
#include "common/wire/pkcs11_uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct pkcs11_uri parse(const char *text) {
  struct pkcs11_uri uri;
  const char *why = NULL;

  if (pkcs11_uri_parse(&uri, bytes_text(text), &why) != STATUS_OK) {
    fail_msg("%s: %s", text, why);
  }
  assert_null(why);
  return uri;
}

static void assert_value(const struct pkcs11_uri *uri, enum pkcs11_attribute attribute,
                         const char *value, size_t len) {
  const struct pkcs11_value *found = &uri->values[attribute];
  assert_true(found->is_set);
  assert_true(bytes_equal(bytes_of(found->data, found->len), bytes_of(value, len)));
}

static void reads_what_names_a_key(void **state) {
  const struct pkcs11_uri uri = parse(
      "pkcs11:token=t%201;object=ec1;type=private;id=%00%ff;slot-id=17;library-version=2.40"
      "?pin-source=file:/a&module-path=/b?c&x-vendor=1");
  (void)state;

  assert_value(&uri, PKCS11_TOKEN, "t 1", 3);
  assert_value(&uri, PKCS11_OBJECT, "ec1", 3);
  assert_value(&uri, PKCS11_TYPE, "private", 7);
  assert_value(&uri, PKCS11_ID, "\x00\xff", 2);
  assert_value(&uri, PKCS11_PIN_SOURCE, "file:/a", 7);
  assert_value(&uri, PKCS11_MODULE_PATH, "/b?c", 4);
  assert_int_equal(uri.slot_id, 17);
  assert_false(uri.values[PKCS11_SERIAL].is_set);
}

static void an_empty_uri_names_everything(void **state) {
  const struct pkcs11_uri uri = parse("PKCS11:");
  (void)state;
  for (int i = 0; i < PKCS11_NUM_ATTRIBUTES; i++) {
    assert_false(uri.values[i].is_set);
    assert_true(pkcs11_uri_fits(&uri, (enum pkcs11_attribute)i, bytes_text("anything")));
  }
}

// RFC 7512, section 3 has more; these are of its forms.
static void takes_forms_of_the_rfc(void **state) {
  static const char *const good[] = {
      "pkcs11:object=my-pubkey;type=public",
      "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
      "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model="
      "1.0;"
      "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/t",
      "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11",
      "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
      "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value="
      "the-pin",
      "pkcs11:slot-description=Sun%20Metaslot",
      "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
      "library-version=1.23",
      "pkcs11:library-version=3",
      "pkcs11:token=My%20token%25%20created%20by%20Joe;object=my-certificate",
      "pkcs11:id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
  };
  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    (void)parse(good[i]);
  }
}

static void refuses_what_could_name_another_key(void **state) {
  static const char *const bad[] = {
      "",
      "pkcs11",
      "pkcs12:token=a",
      "pkcs11:token",
      "pkcs11:token=a;",
      "pkcs11:;token=a",
      "pkcs11:token=a;;object=b",
      "pkcs11:token=a;token=a",
      "pkcs11:tokn=a",
      "pkcs11:x-vendor=a",
      "pkcs11:Token=a",
      "pkcs11:token=a b",
      "pkcs11:token=a%2",
      "pkcs11:token=a%zz",
      "pkcs11:token=a/b",
      "pkcs11:token=a#b",
      "pkcs11:token=\xc3\xa9",
      "pkcs11:token=123456789012345678901234567890123",
      "pkcs11:serial=12345678901234567",
      "pkcs11:type=key",
      "pkcs11:type=",
      "pkcs11:slot-id=",
      "pkcs11:slot-id=1a",
      "pkcs11:slot-id=-1",
      "pkcs11:slot-id=18446744073709551616",
      "pkcs11:library-version=1.",
      "pkcs11:library-version=.1",
      "pkcs11:library-version=1.2.3",
      "pkcs11:?",
      "pkcs11:?pin-value=1&pin-value=2",
      "pkcs11:?token=a",
      "pkcs11:pin-value=a",
      "pkcs11:?x vendor=a",
      "pkcs11:?=a",
  };
  struct pkcs11_uri uri;
  const char *why = NULL;
  (void)state;

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    why = NULL;
    if (pkcs11_uri_parse(&uri, bytes_text(bad[i]), &why) != STATUS_FORMAT || why == NULL) {
      fail_msg("taken: %s", bad[i]);
    }
    assert_false(uri.values[PKCS11_TOKEN].is_set);
  }
}

// put writes a text without its end and returns where it ended.
static size_t put(char *text, size_t at, const char *more) {
  for (; *more != '\0'; more++) {
    text[at++] = *more;
  }
  return at;
}

static void refuses_too_long_a_text(void **state) {
  char text[PKCS11_URI_MAX_LEN + 4] = {0};
  size_t len = put(text, 0, "pkcs11:?a=b");
  struct pkcs11_uri uri;
  (void)state;

  while (len + 4 <= PKCS11_URI_MAX_LEN) {
    len = put(text, len, "&a=b");
  }
  assert_int_equal(pkcs11_uri_parse(&uri, bytes_of(text, len), NULL), STATUS_OK);
  (void)put(text, len, "bbbb");
  assert_int_equal(pkcs11_uri_parse(&uri, bytes_of(text, PKCS11_URI_MAX_LEN), NULL), STATUS_OK);
  assert_int_equal(pkcs11_uri_parse(&uri, bytes_of(text, PKCS11_URI_MAX_LEN + 1), NULL),
                   STATUS_FORMAT);
}

static void writes_what_reads_the_same(void **state) {
  static const char text[] =
      "pkcs11:slot-id=3;token=a%20b%3Bc&d;id=%00;object=%2F%25;type=private"
      "?module-path=/x&pin-source=y%26z";
  const struct pkcs11_uri uri = parse(text);
  char out[PKCS11_URI_MAX_TEXT_LEN];
  (void)state;

  assert_int_equal(pkcs11_uri_format(out, sizeof out, &uri), STATUS_OK);
  assert_string_equal(out, text);
  assert_int_equal(pkcs11_uri_format(out, sizeof text - 1, &uri), STATUS_LIMIT);
}

static void equal_is_what_says_the_same(void **state) {
  const struct pkcs11_uri one = parse("pkcs11:token=a;object=b?module-path=/x");
  const struct pkcs11_uri same = parse("pkcs11:object=%62;token=%61?module-path=/x&v=1");
  static const char *const others[] = {
      "pkcs11:token=a;object=b",
      "pkcs11:token=a;object=bb?module-path=/x",
      "pkcs11:token=a;object=b;serial=?module-path=/x",
      "pkcs11:token=a;object=c?module-path=/x",
  };
  (void)state;

  assert_true(pkcs11_uri_equal(&one, &same));
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    const struct pkcs11_uri other = parse(others[i]);
    assert_false(pkcs11_uri_equal(&one, &other));
  }
}

static void compares_without_the_padding(void **state) {
  const struct pkcs11_uri uri = parse("pkcs11:token=web;serial=");
  (void)state;

  assert_true(pkcs11_uri_fits(&uri, PKCS11_TOKEN, bytes_text("web       ")));
  assert_true(pkcs11_uri_fits(&uri, PKCS11_TOKEN, bytes_text("web")));
  assert_false(pkcs11_uri_fits(&uri, PKCS11_TOKEN, bytes_text("web2      ")));
  assert_false(pkcs11_uri_fits(&uri, PKCS11_TOKEN, bytes_text("we        ")));
  assert_false(pkcs11_uri_fits(&uri, PKCS11_TOKEN, bytes_text(" web")));
  assert_true(pkcs11_uri_fits(&uri, PKCS11_SERIAL, bytes_text("      ")));
  assert_false(pkcs11_uri_fits(&uri, PKCS11_SERIAL, bytes_text("1     ")));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_what_names_a_key),
      cmocka_unit_test(an_empty_uri_names_everything),
      cmocka_unit_test(takes_forms_of_the_rfc),
      cmocka_unit_test(refuses_what_could_name_another_key),
      cmocka_unit_test(refuses_too_long_a_text),
      cmocka_unit_test(writes_what_reads_the_same),
      cmocka_unit_test(equal_is_what_says_the_same),
      cmocka_unit_test(compares_without_the_padding),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

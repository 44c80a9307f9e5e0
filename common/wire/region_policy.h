// SPDX-License-Identifier: Apache-2.0
// region_policy: the language that says which key servers may hold a sealed key,
// as "(region: EU) and (not country: FR)" (docs/SEALED-KEYS.md, "The policy").
// Text in, a compact form out, and back; no I/O, no allocation. The text comes from
// an operator or from the head of a sealed file (sealed_key.h).
//
//   policy   = and-part *( "or" and-part )
//   and-part = factor *( "and" factor )
//   factor   = "not" factor / "(" policy ")" / name ":" value
//   name     = a letter, then letters, digits, "-" or "_"
//   value    = letters, digits, "-", "_", ".", "/"; anything else of printable
//              ASCII in double quotes, with \" and \\ for those two
//
// So "not" binds closest, then "and", then "or". The three words are written small
// and are neither names nor bare values. Names and values know no case.
//
// A term is true when the server has that value for the name (a name may have
// several), false when it has only others, and unknown when it has none. Unknown
// stays unknown under "not", and only what is true admits: a server that does not
// say its country is not let in by "not country: FR".
#ifndef DEPUTY_COMMON_WIRE_REGION_POLICY_H_
#define DEPUTY_COMMON_WIRE_REGION_POLICY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define REGION_POLICY_MAX_LEN 1024u  // of the text
#define REGION_POLICY_MAX_DEPTH 32u  // "(" and "not" that are open at a time
#define REGION_POLICY_MAX_TERMS 64u
#define REGION_POLICY_MAX_NODES 255u  // terms and operators together
#define REGION_MAX_NAME_LEN 64u
#define REGION_MAX_VALUE_LEN 128u
#define REGION_MAX_ATTRIBUTES 64u  // of one server

// What an operator says of a server: "country: DE".
struct region_attribute {
  char name[REGION_MAX_NAME_LEN + 1];
  char value[REGION_MAX_VALUE_LEN + 1];
};

// A parsed policy, operators behind what they join. Copied by assignment.
struct region_policy {
  struct region_node {
    uint8_t kind;  // enum region_node_kind, in region_policy.c
    uint16_t name_at;
    uint16_t value_at;  // of a term: where in texts
  } nodes[REGION_POLICY_MAX_NODES];
  size_t num_nodes;
  size_t num_terms;
  char texts[REGION_POLICY_MAX_LEN + 2];  // names and values, each terminated
  size_t texts_len;
};

// region_policy_parse: on failure *out holds no terms and admits nobody, and err
// has the column (from 1, in bytes) with what was expected there.
//   STATUS_FORMAT  not of the language
//   STATUS_LIMIT   of the language, but more than a limit above allows
enum status region_policy_parse(struct region_policy *out, struct bytes text, struct errmsg *err);

// region_policy_format writes it as short as it can be, with a terminator.
// STATUS_LIMIT: `max` is too small; REGION_POLICY_MAX_TEXT_LEN never is.
#define REGION_POLICY_MAX_TEXT_LEN (8u * REGION_POLICY_MAX_LEN)
enum status region_policy_format(char *out, size_t max, const struct region_policy *policy);

// region_policy_admits: may a server with these attributes hold the key?
bool region_policy_admits(const struct region_policy *policy,
                          const struct region_attribute *attributes, size_t num);

// region_policy_term borrows name and value of one term; `index` < num_terms.
void region_policy_term(const char **out_name, const char **out_value,
                        const struct region_policy *policy, size_t index);

// region_attribute_parse reads one "name: value" of the same language.
// STATUS_FORMAT, STATUS_LIMIT as above.
enum status region_attribute_parse(struct region_attribute *out, struct bytes text,
                                   struct errmsg *err);

// region_name_equal compares as the language does: ASCII letters without case.
bool region_name_equal(const char *a, const char *b);

#endif  // DEPUTY_COMMON_WIRE_REGION_POLICY_H_

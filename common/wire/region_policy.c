// SPDX-License-Identifier: Apache-2.0
#include "common/wire/region_policy.h"

#include <stdio.h>
#include <string.h>

#include "common/wire/writer.h"

// In the order of how close an operator binds.
enum region_node_kind { NODE_TERM, NODE_OPEN, NODE_OR, NODE_AND, NODE_NOT };

#define OPERAND "\"(\", \"not\" or a term as \"region: EU\""
#define OPERATOR "\"and\", \"or\" or the end"
#define FOUND_MAX_LEN 24
#define MAX_OPERATORS (3u * REGION_POLICY_MAX_DEPTH + 3u)

// --- characters ------------------------------------------------------------------------

static bool is_letter(uint8_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static bool is_name_char(uint8_t c) {
  return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool is_value_char(uint8_t c) { return is_name_char(c) || c == '.' || c == '/'; }

static bool is_printable(uint8_t c) { return c >= 0x20 && c <= 0x7e; }

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

bool region_name_equal(const char *a, const char *b) {
  while (*a != '\0' && lower(*a) == lower(*b)) {
    a++;
    b++;
  }
  return lower(*a) == lower(*b);
}

static bool is_word(struct bytes text, const char *word) {
  return bytes_equal(text, bytes_text(word));
}

// The three words of the language, in whatever case, are nobody's name: a policy
// that is misread by a person is worse than one that is refused.
static bool is_reserved(const char *text) {
  return region_name_equal(text, "and") || region_name_equal(text, "or") ||
         region_name_equal(text, "not");
}

// --- reading ---------------------------------------------------------------------------

struct reader {
  struct bytes text;
  size_t at;
  struct errmsg *err;
};

static void skip_blanks(struct reader *r) {
  while (r->at < r->text.len && (r->text.data[r->at] == ' ' || r->text.data[r->at] == '\t')) {
    r->at++;
  }
}

static bool is_at(const struct reader *r, uint8_t c) {
  return r->at < r->text.len && r->text.data[r->at] == c;
}

// run_at is the longest run of such characters from here.
static struct bytes run_at(const struct reader *r, bool (*is_of)(uint8_t c)) {
  size_t end = r->at;
  while (end < r->text.len && is_of(r->text.data[end])) {
    end++;
  }
  return bytes_of(r->text.data + r->at, end - r->at);
}

// describe_found writes what stands at the reader's place, fit for a message.
static void describe_found(char out[FOUND_MAX_LEN + 3], const struct reader *r) {
  struct bytes run = run_at(r, is_value_char);

  if (r->at == r->text.len) {
    (void)snprintf(out, FOUND_MAX_LEN + 3, "the end");
    return;
  }
  if (run.len == 0) {
    const uint8_t c = r->text.data[r->at];
    (void)snprintf(out, FOUND_MAX_LEN + 3, is_printable(c) ? "'%c'" : "byte 0x%02x", c);
    return;
  }
  (void)snprintf(out, FOUND_MAX_LEN + 3, "\"%.*s\"",
                 run.len > FOUND_MAX_LEN ? FOUND_MAX_LEN : (int)run.len, (const char *)run.data);
}

static enum status expected(const struct reader *r, const char *what) {
  char found[FOUND_MAX_LEN + 3];

  if (r->err == NULL) {
    return STATUS_FORMAT;
  }
  describe_found(found, r);
  return errmsg_set(r->err, STATUS_FORMAT, "column %zu: expected %s, found %s", r->at + 1, what,
                    found);
}

static enum status too_much(const struct reader *r, const char *what, size_t limit) {
  return errmsg_set(r->err, STATUS_LIMIT, "column %zu: more than %zu %s", r->at + 1, limit, what);
}

static enum status read_name(char out[REGION_MAX_NAME_LEN + 1], struct reader *r,
                             const char *what) {
  const struct bytes run = run_at(r, is_name_char);

  if (run.len == 0 || !is_letter(run.data[0])) {
    return expected(r, what);
  }
  if (run.len > REGION_MAX_NAME_LEN) {
    return too_much(r, "characters in a name", REGION_MAX_NAME_LEN);
  }
  memcpy(out, run.data, run.len);
  out[run.len] = '\0';
  if (is_reserved(out)) {
    return expected(r, what);
  }
  r->at += run.len;
  return STATUS_OK;
}

static enum status read_quoted(char out[REGION_MAX_VALUE_LEN + 1], struct reader *r) {
  size_t len = 0;

  r->at++;
  while (!is_at(r, '"')) {
    if (is_at(r, '\\')) {
      r->at++;
      if (!is_at(r, '\\') && !is_at(r, '"')) {
        return expected(r, "'\"' or '\\' after a '\\'");
      }
    }
    if (r->at == r->text.len || !is_printable(r->text.data[r->at])) {
      return expected(r, "printable ASCII and then a '\"'");
    }
    if (len == REGION_MAX_VALUE_LEN) {
      return too_much(r, "characters in a value", REGION_MAX_VALUE_LEN);
    }
    out[len++] = (char)r->text.data[r->at++];
  }
  if (len == 0) {
    return expected(r, "a value between the quotes");
  }
  out[len] = '\0';
  r->at++;
  return STATUS_OK;
}

static enum status read_value(char out[REGION_MAX_VALUE_LEN + 1], struct reader *r) {
  const struct bytes run = run_at(r, is_value_char);

  if (is_at(r, '"')) {
    return read_quoted(out, r);
  }
  if (run.len == 0) {
    return expected(r, "a value");
  }
  if (run.len > REGION_MAX_VALUE_LEN) {
    return too_much(r, "characters in a value", REGION_MAX_VALUE_LEN);
  }
  memcpy(out, run.data, run.len);
  out[run.len] = '\0';
  if (is_reserved(out)) {
    return expected(r, "a value (in quotes, if it is this word)");
  }
  r->at += run.len;
  return STATUS_OK;
}

static enum status read_term(struct region_attribute *out, struct reader *r, const char *what) {
  enum status st = STATUS_OK;

  TRY(read_name(out->name, r, what));
  skip_blanks(r);
  if (!is_at(r, ':')) {
    TRY(expected(r, "':' after a name"));
  }
  r->at++;
  skip_blanks(r);
  TRY(read_value(out->value, r));

out:
  return st;
}

enum status region_attribute_parse(struct region_attribute *out, struct bytes text,
                                   struct errmsg *err) {
  struct reader r = {.text = text, .err = err};
  enum status st = STATUS_OK;

  *out = (struct region_attribute){0};
  if (text.len > REGION_POLICY_MAX_LEN) {
    TRY(too_much(&r, "characters", REGION_POLICY_MAX_LEN));
  }
  skip_blanks(&r);
  TRY(read_term(out, &r, "an attribute as \"region: EU\""));
  skip_blanks(&r);
  if (r.at < text.len) {
    TRY(expected(&r, "the end"));
  }

out:
  if (st != STATUS_OK) {
    *out = (struct region_attribute){0};
  }
  return st;
}

// --- parsing: operators wait until what they join is there ---------------------------------

struct parser {
  struct reader r;
  struct region_policy *policy;
  struct waiting {
    uint8_t kind;
    size_t column;
  } waiting[MAX_OPERATORS];
  size_t num_waiting;
  size_t depth;  // NODE_OPEN and NODE_NOT among them
};

static enum status emit(struct parser *p, struct region_node node) {
  struct region_policy *policy = p->policy;

  if (policy->num_nodes == REGION_POLICY_MAX_NODES) {
    return too_much(&p->r, "terms and operators", REGION_POLICY_MAX_NODES);
  }
  policy->nodes[policy->num_nodes++] = node;
  return STATUS_OK;
}

static uint16_t keep_text(struct region_policy *policy, const char *text) {
  const size_t len = strlen(text) + 1;
  const size_t at = policy->texts_len;

  // Each term takes a colon, and all but the last a separator, so this holds.
  CHECK(len <= sizeof policy->texts - at);
  memcpy(policy->texts + at, text, len);
  policy->texts_len += len;
  return (uint16_t)at;
}

static enum status emit_term(struct parser *p, const struct region_attribute *term) {
  struct region_node node = {.kind = NODE_TERM};

  if (p->policy->num_terms == REGION_POLICY_MAX_TERMS) {
    return too_much(&p->r, "terms", REGION_POLICY_MAX_TERMS);
  }
  p->policy->num_terms++;
  node.name_at = keep_text(p->policy, term->name);
  node.value_at = keep_text(p->policy, term->value);
  return emit(p, node);
}

static enum status push(struct parser *p, enum region_node_kind kind) {
  if (kind == NODE_OPEN || kind == NODE_NOT) {
    if (p->depth == REGION_POLICY_MAX_DEPTH) {
      return too_much(&p->r, "levels of \"(\" and \"not\"", REGION_POLICY_MAX_DEPTH);
    }
    p->depth++;
  }
  CHECK(p->num_waiting < MAX_OPERATORS);  // at most an "or" and an "and" for each level
  p->waiting[p->num_waiting++] = (struct waiting){(uint8_t)kind, p->r.at + 1};
  return STATUS_OK;
}

// pop_down_to emits what waits and binds at least as close as `kind`; an open "("
// stops it.
static enum status pop_down_to(struct parser *p, enum region_node_kind kind) {
  while (p->num_waiting > 0) {
    const uint8_t top = p->waiting[p->num_waiting - 1].kind;
    if (top == NODE_OPEN || top < (uint8_t)kind) {
      return STATUS_OK;
    }
    p->num_waiting--;
    p->depth -= top == NODE_NOT ? 1 : 0;
    const enum status st = emit(p, (struct region_node){.kind = top});
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

// read_operand reads one "(", "not" or term; after a term an operator is due.
static enum status read_operand(struct parser *p, bool *is_operator_due) {
  struct region_attribute term;
  enum status st = STATUS_OK;

  if (is_at(&p->r, '(')) {
    TRY(push(p, NODE_OPEN));
    p->r.at++;
  } else if (is_word(run_at(&p->r, is_name_char), "not")) {
    TRY(push(p, NODE_NOT));
    p->r.at += strlen("not");
  } else {
    TRY(read_term(&term, &p->r, OPERAND));
    TRY(emit_term(p, &term));
    *is_operator_due = true;
  }

out:
  return st;
}

static enum status read_close(struct parser *p) {
  enum status st = STATUS_OK;

  TRY(pop_down_to(p, NODE_OR));
  if (p->num_waiting == 0) {
    TRY(expected(&p->r, OPERATOR));
  }
  p->num_waiting--;
  p->depth--;
  p->r.at++;

out:
  return st;
}

// read_operator reads one ")", "and" or "or"; after the words an operand is due.
static enum status read_operator(struct parser *p, bool *is_operator_due) {
  const struct bytes word = run_at(&p->r, is_name_char);
  const bool is_and = is_word(word, "and");
  enum status st = STATUS_OK;

  if (is_at(&p->r, ')')) {
    return read_close(p);
  }
  if (!is_and && !is_word(word, "or")) {
    return expected(&p->r, p->depth > 0 ? "\"and\", \"or\" or \")\"" : OPERATOR);
  }
  TRY(pop_down_to(p, is_and ? NODE_AND : NODE_OR));
  TRY(push(p, is_and ? NODE_AND : NODE_OR));
  p->r.at += word.len;
  *is_operator_due = false;

out:
  return st;
}

static enum status parse(struct parser *p) {
  bool is_operator_due = false;
  enum status st = STATUS_OK;

  if (p->r.text.len > REGION_POLICY_MAX_LEN) {
    return errmsg_set(p->r.err, STATUS_LIMIT, "longer than %u characters", REGION_POLICY_MAX_LEN);
  }
  for (;;) {
    skip_blanks(&p->r);
    if (is_operator_due && p->r.at == p->r.text.len) {
      break;
    }
    TRY(is_operator_due ? read_operator(p, &is_operator_due) : read_operand(p, &is_operator_due));
  }
  TRY(pop_down_to(p, NODE_OR));
  if (p->num_waiting > 0) {
    st = errmsg_set(p->r.err, STATUS_FORMAT,
                    "column %zu: expected \")\" for the \"(\" of column %zu, found the end",
                    p->r.at + 1, p->waiting[p->num_waiting - 1].column);
  }

out:
  return st;
}

enum status region_policy_parse(struct region_policy *out, struct bytes text, struct errmsg *err) {
  struct parser p = {.r = {.text = text, .err = err}, .policy = out};
  enum status st = STATUS_OK;

  out->num_nodes = 0;
  out->num_terms = 0;
  out->texts_len = 0;
  st = parse(&p);
  if (st != STATUS_OK) {
    out->num_nodes = 0;
    out->num_terms = 0;
  }
  return st;
}

// --- evaluating ----------------------------------------------------------------------------

// The order makes "and" the lesser, "or" the greater, "not" the distance from the top.
enum truth { TRUTH_FALSE, TRUTH_UNKNOWN, TRUTH_TRUE };

static enum truth term_truth(const char *name, const char *value,
                             const struct region_attribute *attributes, size_t num) {
  enum truth truth = TRUTH_UNKNOWN;

  for (size_t i = 0; i < num; i++) {
    if (!region_name_equal(attributes[i].name, name)) {
      continue;
    }
    if (region_name_equal(attributes[i].value, value)) {
      return TRUTH_TRUE;
    }
    truth = TRUTH_FALSE;
  }
  return truth;
}

bool region_policy_admits(const struct region_policy *policy,
                          const struct region_attribute *attributes, size_t num) {
  enum truth stack[REGION_POLICY_MAX_TERMS];
  size_t top = 0;  // how many are on it

  for (size_t i = 0; i < policy->num_nodes; i++) {
    const struct region_node *node = &policy->nodes[i];
    if (node->kind == NODE_TERM) {
      CHECK(top < REGION_POLICY_MAX_TERMS);
      stack[top++] = term_truth(policy->texts + node->name_at, policy->texts + node->value_at,
                                attributes, num);
      continue;
    }
    if (node->kind == NODE_NOT) {
      CHECK(top >= 1);
      stack[top - 1] = TRUTH_TRUE - stack[top - 1];
      continue;
    }
    CHECK(top >= 2);
    top--;
    if ((node->kind == NODE_AND) == (stack[top] < stack[top - 1])) {
      stack[top - 1] = stack[top];
    }
  }
  return top == 1 && stack[0] == TRUTH_TRUE;
}

void region_policy_term(const char **out_name, const char **out_value,
                        const struct region_policy *policy, size_t index) {
  size_t at = 0;

  CHECK(index < policy->num_terms);
  while (policy->nodes[at].kind != NODE_TERM || index-- > 0) {
    at++;
  }
  *out_name = policy->texts + policy->nodes[at].name_at;
  *out_value = policy->texts + policy->nodes[at].value_at;
}

// --- and back --------------------------------------------------------------------------------

// What is still to be written: nodes by their index, and these.
enum { PART_OPEN = -1, PART_CLOSE = -2, PART_AND = -3, PART_OR = -4 };

struct formatter {
  struct writer w;
  const struct region_policy *policy;
  int parts[4 * REGION_POLICY_MAX_NODES];
  size_t num_parts;
  uint16_t sizes[REGION_POLICY_MAX_NODES];  // of the part of the policy that a node ends
};

static void measure(struct formatter *f) {
  for (size_t i = 0; i < f->policy->num_nodes; i++) {
    const uint8_t kind = f->policy->nodes[i].kind;
    size_t size = 1;
    if (kind != NODE_TERM) {
      size += f->sizes[i - 1];
    }
    if (kind == NODE_AND || kind == NODE_OR) {
      size += f->sizes[i - 1 - f->sizes[i - 1]];
    }
    f->sizes[i] = (uint16_t)size;
  }
}

static void put_part(struct formatter *f, int part) {
  CHECK(f->num_parts < sizeof f->parts / sizeof f->parts[0]);
  f->parts[f->num_parts++] = part;
}

static void put_operand(struct formatter *f, size_t node, bool is_enclosed) {
  if (is_enclosed) {
    put_part(f, PART_CLOSE);
  }
  put_part(f, (int)node);
  if (is_enclosed) {
    put_part(f, PART_OPEN);
  }
}

static void write_value(struct writer *w, const char *value) {
  bool is_bare = !is_reserved(value);

  for (const char *c = value; *c != '\0'; c++) {
    is_bare = is_bare && is_value_char((uint8_t)*c);
  }
  if (is_bare) {
    writer_bytes(w, bytes_text(value));
    return;
  }
  writer_u8(w, '"');
  for (const char *c = value; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') {
      writer_u8(w, '\\');
    }
    writer_u8(w, (uint8_t)*c);
  }
  writer_u8(w, '"');
}

static void write_node(struct formatter *f, size_t at) {
  const struct region_node *node = &f->policy->nodes[at];
  const size_t right = at - 1;
  size_t left = 0;

  if (node->kind == NODE_TERM) {
    writer_bytes(&f->w, bytes_text(f->policy->texts + node->name_at));
    writer_bytes(&f->w, bytes_text(": "));
    write_value(&f->w, f->policy->texts + node->value_at);
    return;
  }
  const uint8_t right_kind = f->policy->nodes[right].kind;
  if (node->kind == NODE_NOT) {
    writer_bytes(&f->w, bytes_text("not "));
    put_operand(f, right, right_kind == NODE_AND || right_kind == NODE_OR);
    return;
  }
  left = right - f->sizes[right];
  // Operators join from the left, so the same one at the right was in parentheses.
  put_operand(f, right,
              right_kind == node->kind || (node->kind == NODE_AND && right_kind == NODE_OR));
  put_part(f, node->kind == NODE_AND ? PART_AND : PART_OR);
  put_operand(f, left, node->kind == NODE_AND && f->policy->nodes[left].kind == NODE_OR);
}

enum status region_policy_format(char *out, size_t max, const struct region_policy *policy) {
  static const char *const words[] = {"", "(", ")", " and ", " or "};
  struct formatter f = {.w = writer_of((uint8_t *)out, max), .policy = policy};
  size_t len = 0;

  if (policy->num_nodes > 0) {
    measure(&f);
    put_part(&f, (int)policy->num_nodes - 1);
  }
  while (f.num_parts > 0) {
    const int part = f.parts[--f.num_parts];
    if (part < 0) {
      writer_bytes(&f.w, bytes_text(words[-part]));
    } else {
      write_node(&f, (size_t)part);
    }
  }
  writer_u8(&f.w, 0);
  return writer_finish(&f.w, &len);
}

// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/admin_body.h"

#include <string.h>
#include <strings.h>

static enum status read_text(char *out, const struct body_field *field, const json_t *value,
                             struct errmsg *err) {
  if (!json_is_string(value)) {
    return errmsg_set(err, STATUS_FORMAT, "\"%s\" must be a text", field->name);
  }
  size_t len = json_string_length(value);
  if (len >= field->max) {
    return errmsg_set(err, STATUS_FORMAT, "\"%s\" has %zu bytes, more than the %zu that are kept",
                      field->name, len, field->max - 1);
  }
  if (field->is_required && len == 0) {
    return errmsg_set(err, STATUS_FORMAT, "\"%s\" must not be empty", field->name);
  }
  memcpy(out, json_string_value(value), len + 1);
  return STATUS_OK;
}

static enum status read_field(void *out, const struct body_field *field, const json_t *value,
                              struct errmsg *err) {
  uint8_t *at = (uint8_t *)out + field->offset;
  bool is_true = false;
  uint64_t id = 0;
  switch (field->type) {
    case BODY_TEXT:
      return read_text((char *)at, field, value, err);
    case BODY_BOOL:
      if (!json_is_boolean(value)) {
        return errmsg_set(err, STATUS_FORMAT, "\"%s\" must be true or false", field->name);
      }
      is_true = json_is_true(value);
      memcpy(at, &is_true, sizeof(is_true));
      return STATUS_OK;
    case BODY_ID:
      if (!json_is_integer(value) || json_integer_value(value) < 1) {
        return errmsg_set(err, STATUS_FORMAT, "\"%s\" must be a number from 1", field->name);
      }
      id = (uint64_t)json_integer_value(value);
      memcpy(at, &id, sizeof(id));
      return STATUS_OK;
  }
  CHECK(false);
}

static const struct body_field *find_field(const struct body_field *fields, const char *name) {
  for (; fields->name != NULL; fields++) {
    if (strcmp(fields->name, name) == 0) {
      return fields;
    }
  }
  return NULL;
}

static enum status read_all(void *out, const struct body_field *fields, json_t *object,
                            struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *name = NULL;
  json_t *value = NULL;
  json_object_foreach (object, name, value) {
    const struct body_field *field = find_field(fields, name);
    if (field == NULL) {
      return errmsg_set(err, STATUS_FORMAT, "unknown field \"%.100s\"", name);
    }
    TRY(read_field(out, field, value, err));
  }
  for (; fields->name != NULL; fields++) {
    if (fields->is_required && json_object_get(object, fields->name) == NULL) {
      TRY(errmsg_set(err, STATUS_FORMAT, "\"%s\" is missing", fields->name));
    }
  }

out:
  return st;
}

enum status admin_body_read(void *out, const struct body_field *fields, struct bytes body,
                            struct errmsg *err) {
  json_error_t error;
  json_t *object = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, &error);
  if (object == NULL) {
    return errmsg_set(err, STATUS_FORMAT, "the body is not JSON: %s", error.text);
  }
  enum status st = json_is_object(object)
                       ? read_all(out, fields, object, err)
                       : errmsg_set(err, STATUS_FORMAT, "the body is not a JSON object");
  json_decref(object);
  return st;
}

bool admin_body_may_post(struct http_request *request) {
  static const char wanted[] = "application/json";
  const char *type = http_request_header(request, "Content-Type");
  if (http_request_header(request, "Origin") != NULL) {
    http_reply_error(request, 403, "no_browsers", "requests with an Origin are refused");
    return false;
  }
  if (type == NULL || strncasecmp(type, wanted, sizeof(wanted) - 1) != 0 ||
      (type[sizeof(wanted) - 1] != '\0' && type[sizeof(wanted) - 1] != ';')) {
    http_reply_error(request, 415, "not_json", "send the body as application/json");
    return false;
  }
  return true;
}

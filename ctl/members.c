// SPDX-License-Identifier: Apache-2.0
#include "ctl/members.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/config_rows.h"

// One member as it is written.
struct members_entry {
  char *name;
  char *public_key;
  char **attributes;
  size_t num_attributes;
};

// clang-format off
static const struct config_option entry_table[] = {
  {"name", CONFIG_TEXT, PLACE(members_entry, name), .is_required = true, .min = 1,
   .max = SEALED_KEY_MAX_NAME_LEN, .help = "Name of the key server, for people"},
  {"public_key", CONFIG_TEXT, PLACE(members_entry, public_key), .is_required = true,
   .help = "Its public key, as deputyctl key identity prints it"},
  {"attributes", CONFIG_TEXTS, LIST(members_entry, attributes, num_attributes), .is_required = true,
   .min = 1, .max = REGION_MAX_ATTRIBUTES,
   .help = "What policies may ask of it, as \"region: EU\""},
  {0},
};

static const struct config_option members_table[] = {
  {"members", CONFIG_OBJECTS, LIST(members_file, entries, num_entries), .is_required = true,
   .min = 1, .max = SEALED_KEY_MAX_RECIPIENTS, .children = entry_table,
   .child_size = sizeof(struct members_entry), .help = "The key servers"},
  {0},
};
// clang-format on

static enum status check_unique(const struct members *members, const struct member *member,
                                struct errmsg *err) {
  for (const struct member *other = members->list; other < member; other++) {
    if (strcmp(other->recipient.name, member->recipient.name) == 0) {
      return errmsg_set(err, STATUS_CONFIG, "another member has this name");
    }
    if (memcmp(other->recipient.public_key, member->recipient.public_key, SEALING_PUBLIC_KEY_LEN) ==
        0) {
      return errmsg_set(err, STATUS_CONFIG, "%s has the same public key; each makes its own",
                        other->recipient.name);
    }
  }
  return STATUS_OK;
}

static enum status read_member(struct member *out, const struct members_entry *entry,
                               struct errmsg *err) {
  out->recipient.name = entry->name;
  if (!keygen_label_is_good(bytes_text(entry->name))) {
    return errmsg_set(err, STATUS_CONFIG,
                      "a name is letters, digits, \".\", \"_\" and \"-\", and begins with a letter "
                      "or digit");
  }
  if (sealing_public_parse(out->recipient.public_key, entry->public_key) != STATUS_OK) {
    return errmsg_set(err, STATUS_CONFIG,
                      "public_key is not the base64 of an X25519 key, as 'deputyctl key identity "
                      "show' prints it");
  }
  out->attributes = calloc(entry->num_attributes + 1, sizeof(struct region_attribute));
  if (out->attributes == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (; out->num_attributes < entry->num_attributes; out->num_attributes++) {
    const size_t i = out->num_attributes;
    if (region_attribute_parse(&out->attributes[i], bytes_text(entry->attributes[i]), err) !=
        STATUS_OK) {
      errmsg_prefix(err, "attributes[%zu]", i);
      return STATUS_CONFIG;
    }
  }
  return STATUS_OK;
}

enum status members_read(struct members *out, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;

  *out = (struct members){0};
  TRY(config_load(&out->file, members_table, path, err));
  out->list = calloc(out->file.num_entries + 1, sizeof(struct member));
  if (out->list == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  for (; out->num < out->file.num_entries && st == STATUS_OK; out->num++) {
    struct member *member = &out->list[out->num];
    st = read_member(member, &out->file.entries[out->num], err);
    if (st == STATUS_OK) {
      st = check_unique(out, member, err);
    }
    if (st != STATUS_OK) {
      errmsg_prefix(err, "%s: members[%zu] (%s)", path, out->num, member->recipient.name);
    }
  }

out:
  return st;
}

void members_cleanup(struct members *members) {
  for (size_t i = 0; i < members->num; i++) {
    free(members->list[i].attributes);
  }
  free(members->list);
  config_cleanup(&members->file, members_table);
  *members = (struct members){0};
}

size_t members_admitted(struct sealing_recipient *out, const struct members *members,
                        const struct region_policy *policy) {
  size_t num = 0;

  for (size_t i = 0; i < members->num; i++) {
    const struct member *member = &members->list[i];
    if (region_policy_admits(policy, member->attributes, member->num_attributes)) {
      out[num++] = member->recipient;
    }
  }
  return num;
}

bool members_have(const struct members *members, const char *attribute) {
  for (size_t i = 0; i < members->num; i++) {
    for (size_t a = 0; a < members->list[i].num_attributes; a++) {
      if (region_name_equal(members->list[i].attributes[a].name, attribute)) {
        return true;
      }
    }
  }
  return false;
}

/* config.c: who the members of a group are, as a value and as bytes. */
#include "base/codec.h"
#include "consensus/entry.h"

enum { FORMAT = 1, VOTER = 1, VOTER_OLD = 2, WITNESS = 4 };

void con_config_encode(const struct con_config *config, struct base_buf *out)
{
    base_buf_put_u8(out, FORMAT);
    base_buf_put_varint(out, config->index);
    base_buf_put_u8(out, config->joint);
    base_buf_put_varint(out, config->count);
    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];

        base_buf_put_le64(out, member->id);
        base_buf_put_u8(out, (uint8_t)((member->voter ? VOTER : 0) |
                                       (member->voter_old ? VOTER_OLD : 0) |
                                       (member->witness ? WITNESS : 0)));
        base_buf_put_lenbytes(out, base_bytes_str(member->address));
    }
}

static bool take_u8(struct base_bytes *in, uint8_t *value)
{
    struct base_bytes one;

    if (!base_take_bytes(in, 1, &one))
        return false;
    *value = one.data[0];
    return true;
}

static bool take_member(struct base_bytes *in, struct con_member *member)
{
    struct base_bytes address;
    uint8_t flags;

    if (!base_take_le64(in, &member->id) || !take_u8(in, &flags) ||
        !base_take_lenbytes(in, &address) || address.len >= CON_ADDRESS_MAX ||
        (address.len && memchr(address.data, 0, address.len)) ||
        (flags & ~(VOTER | VOTER_OLD | WITNESS)))
        return false;
    member->voter = flags & VOTER;
    member->voter_old = flags & VOTER_OLD;
    member->witness = flags & WITNESS;
    if (address.len)
        memcpy(member->address, address.data, address.len);
    return true;
}

struct base_status con_config_decode(struct base_bytes data, struct con_config *config)
{
    uint8_t format, joint;
    uint64_t count;

    memset(config, 0, sizeof(*config));
    if (!take_u8(&data, &format) || format != FORMAT || !base_take_varint(&data, &config->index) ||
        !take_u8(&data, &joint) || joint > 1 || !base_take_varint(&data, &count) ||
        count > CON_MEMBERS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "not a configuration of a group");
    config->joint = joint;
    for (; config->count < count; config->count++) {
        struct con_member *member = &config->members[config->count];

        if (!take_member(&data, member) || member->id == 0 ||
            (config->count > 0 && member[-1].id >= member->id))
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "a configuration whose member %u of %u cannot be read",
                                    config->count + 1, (unsigned)count);
    }
    if (data.len > 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a configuration with %zu bytes after its end", data.len);
    return BASE_STATUS_OK;
}

const struct con_member *con_config_member(const struct con_config *config, uint64_t id)
{
    for (uint32_t i = 0; i < config->count; i++)
        if (config->members[i].id == id)
            return &config->members[i];
    return NULL;
}

bool con_config_put(struct con_config *config, const struct con_member *member)
{
    uint32_t at = 0;

    while (at < config->count && config->members[at].id < member->id)
        at++;
    if (at == config->count || config->members[at].id != member->id) {
        if (config->count == CON_MEMBERS_MAX)
            return false;
        memmove(&config->members[at + 1], &config->members[at],
                (config->count - at) * sizeof(*member));
        config->count++;
    }
    config->members[at] = *member;
    return true;
}

bool con_config_remove(struct con_config *config, uint64_t id)
{
    for (uint32_t i = 0; i < config->count; i++) {
        if (config->members[i].id != id)
            continue;
        config->count--;
        memmove(&config->members[i], &config->members[i + 1],
                (config->count - i) * sizeof(config->members[0]));
        memset(&config->members[config->count], 0, sizeof(config->members[0]));
        return true;
    }
    return false;
}

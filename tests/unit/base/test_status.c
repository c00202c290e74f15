/* A status carries a code and a growing text, and success costs nothing. */
#include <errno.h>

#include "base/status.h"
#include "test.h"

Test(status, text_grows_as_it_travels_up)
{
    struct base_status status = base_status_make(BASE_DEADLINE_EXCEEDED, "replica %d", 3);
    status = base_status_wrap(status, "append");
    status = base_status_wrap(status, "commit group %d", 7);
    cr_assert(base_failed(status));
    cr_assert_str_eq(base_status_text(&status), "commit group 7: append: replica 3");
    cr_assert_eq(base_status_drop(status), BASE_DEADLINE_EXCEEDED);
}

Test(status, success_passes_through_wraps_untouched)
{
    struct base_status status = base_status_wrap(BASE_STATUS_OK, "never seen");
    cr_assert_not(base_failed(status));
    cr_assert_null(status.text);
}

Test(status, errno_becomes_the_code_a_client_can_act_on)
{
    static const struct {
        int err;
        enum base_code code;
    } cases[] = { { ENOSPC, BASE_RESOURCE_EXHAUSTED }, { EDQUOT, BASE_RESOURCE_EXHAUSTED },
                  { ENOENT, BASE_NOT_FOUND },          { EEXIST, BASE_ALREADY_EXISTS },
                  { EACCES, BASE_PERMISSION_DENIED },  { EIO, BASE_INTERNAL } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_assert_eq(base_status_drop(base_status_errno(cases[i].err, "open")), cases[i].code);
}

Test(status, names_and_codes_are_each_others_inverse)
{
    for (int code = 0; code <= 16; code++) {
        enum base_code parsed;
        cr_assert(base_code_parse(base_code_name((enum base_code)code), &parsed));
        cr_assert_eq((int)parsed, code);
    }
    enum base_code unused;
    cr_assert_not(base_code_parse("NO_SUCH_CODE", &unused));
}

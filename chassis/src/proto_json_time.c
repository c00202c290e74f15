/* proto_json_time.c: see proto_json.h. Days are counted by the proleptic Gregorian calendar, as RFC
 * 3339 does. */
#include <stdio.h>

#include "proto_json.h"

enum { NANOS_PER_SECOND = 1000000000, SECONDS_PER_DAY = 86400 };
static const int64_t TIMESTAMP_MIN = -62135596800; /* 0001-01-01T00:00:00Z */
static const int64_t TIMESTAMP_MAX = 253402300799; /* 9999-12-31T23:59:59Z */
static const int64_t DURATION_MAX = 315576000000;  /* 10,000 years */

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_in_month(int64_t year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days from 1970-01-01 to the first day of a year >= 1. */
static int64_t days_before_year(int64_t year)
{
    int64_t y = year - 1;
    return y * 365 + y / 4 - y / 100 + y / 400 - 719162;
}

static int64_t days_before_month(int64_t year, int month)
{
    int64_t days = 0;
    for (int m = 1; m < month; m++)
        days += days_in_month(year, m);
    return days;
}

/* ".5", ".123456" or nothing: three, six or nine digits, as few as hold it. Returns the length. */
static int put_fraction(char *at, size_t size, int32_t nanos)
{
    if (nanos == 0)
        return 0;
    if (nanos % 1000000 == 0)
        return snprintf(at, size, ".%03d", nanos / 1000000);
    if (nanos % 1000 == 0)
        return snprintf(at, size, ".%06d", nanos / 1000);
    return snprintf(at, size, ".%09d", nanos);
}

bool ch__timestamp_to_text(int64_t seconds, int32_t nanos, char text[CH__TIME_TEXT_MAX])
{
    if (seconds < TIMESTAMP_MIN || seconds > TIMESTAMP_MAX || nanos < 0 ||
        nanos >= NANOS_PER_SECOND)
        return false;
    int64_t since_year_1 = seconds - TIMESTAMP_MIN;
    int64_t days = since_year_1 / SECONDS_PER_DAY + TIMESTAMP_MIN / SECONDS_PER_DAY;
    int of_day = (int)(since_year_1 % SECONDS_PER_DAY);
    int64_t year = 1970 + days / 366;
    if (days < 0)
        year = 1970 + days / 365 - 1;
    if (year < 1)
        year = 1;
    while (days_before_year(year + 1) <= days)
        year++;
    int64_t day = days - days_before_year(year);
    int month = 1;
    while (day >= days_in_month(year, month))
        day -= days_in_month(year, month++);
    int len = snprintf(text, CH__TIME_TEXT_MAX, "%04d-%02d-%02dT%02d:%02d:%02d", (int)year, month,
                       (int)day + 1, of_day / 3600, of_day / 60 % 60, of_day % 60);
    len += put_fraction(text + len, CH__TIME_TEXT_MAX - (size_t)len, nanos);
    snprintf(text + len, CH__TIME_TEXT_MAX - (size_t)len, "Z");
    return true;
}

/* Exactly `digits` decimal digits, and then `after` when it is not 0. */
static bool take_digits(struct base_bytes *in, int digits, char after, int *value)
{
    size_t need = (size_t)digits + (after != 0);
    if (in->len < need)
        return false;
    *value = 0;
    for (int i = 0; i < digits; i++) {
        if (in->data[i] < '0' || in->data[i] > '9')
            return false;
        *value = *value * 10 + (in->data[i] - '0');
    }
    if (after && in->data[digits] != (uint8_t)after)
        return false;
    *in = base_bytes(in->data + need, in->len - need);
    return true;
}

/* A point and one to nine digits, or nothing. */
static bool take_fraction(struct base_bytes *in, int32_t *nanos)
{
    *nanos = 0;
    if (in->len == 0 || in->data[0] != '.')
        return true;
    size_t at = 1;
    int32_t scale = NANOS_PER_SECOND;
    for (; at < in->len && in->data[at] >= '0' && in->data[at] <= '9'; at++) {
        if (scale == 1)
            return false;
        scale /= 10;
        *nanos += (in->data[at] - '0') * scale;
    }
    *in = base_bytes(in->data + at, in->len - at);
    return at > 1;
}

/* "Z" or "+hh:mm" to the end, as seconds east of UTC. */
static bool take_offset(struct base_bytes *in, int *offset)
{
    *offset = 0;
    if (in->len == 1 && in->data[0] == 'Z')
        return true;
    if (in->len != 6 || (in->data[0] != '+' && in->data[0] != '-'))
        return false;
    int sign = in->data[0] == '-' ? -1 : 1, hours, minutes;
    *in = base_bytes(in->data + 1, in->len - 1);
    if (!take_digits(in, 2, ':', &hours) || !take_digits(in, 2, 0, &minutes) || hours > 23 ||
        minutes > 59)
        return false;
    *offset = sign * (hours * 3600 + minutes * 60);
    return true;
}

bool ch__timestamp_from_text(struct base_bytes text, int64_t *seconds, int32_t *nanos)
{
    int year, month, day, hour, minute, second, offset;
    if (!take_digits(&text, 4, '-', &year) || !take_digits(&text, 2, '-', &month) ||
        !take_digits(&text, 2, 'T', &day) || !take_digits(&text, 2, ':', &hour) ||
        !take_digits(&text, 2, ':', &minute) || !take_digits(&text, 2, 0, &second) ||
        !take_fraction(&text, nanos) || !take_offset(&text, &offset))
        return false;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59)
        return false;
    int64_t days = days_before_year(year) + days_before_month(year, month) + day - 1;
    *seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    return *seconds >= TIMESTAMP_MIN && *seconds <= TIMESTAMP_MAX;
}

bool ch__duration_to_text(int64_t seconds, int32_t nanos, char text[CH__TIME_TEXT_MAX])
{
    if (seconds < -DURATION_MAX || seconds > DURATION_MAX || nanos <= -NANOS_PER_SECOND ||
        nanos >= NANOS_PER_SECOND || (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0))
        return false;
    bool negative = seconds < 0 || nanos < 0;
    int64_t whole = seconds < 0 ? -seconds : seconds;
    int len = snprintf(text, CH__TIME_TEXT_MAX, "%s%lld", negative ? "-" : "", (long long)whole);
    len += put_fraction(text + len, CH__TIME_TEXT_MAX - (size_t)len, nanos < 0 ? -nanos : nanos);
    snprintf(text + len, CH__TIME_TEXT_MAX - (size_t)len, "s");
    return true;
}

bool ch__duration_from_text(struct base_bytes text, int64_t *seconds, int32_t *nanos)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t at = negative;
    *seconds = 0;
    for (; at < text.len && text.data[at] >= '0' && text.data[at] <= '9'; at++) {
        *seconds = *seconds * 10 + (text.data[at] - '0');
        if (*seconds > DURATION_MAX)
            return false;
    }
    if (at == (size_t)negative)
        return false;
    text = base_bytes(text.data + at, text.len - at);
    if (!take_fraction(&text, nanos) || !base_bytes_eq_str(text, "s"))
        return false;
    if (negative) {
        *seconds = -*seconds;
        *nanos = -*nanos;
    }
    return true;
}

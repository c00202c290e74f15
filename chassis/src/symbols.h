/* symbols.h (private to chassis): which names a serialized FileDescriptorProto defines. Pure. */
#ifndef CHASSIS_SYMBOLS_H
#define CHASSIS_SYMBOLS_H

#include "base/bytes.h"

enum ch_symbol { CH_SYMBOL_NONE, CH_SYMBOL_MESSAGE, CH_SYMBOL_OTHER };

/* What `name` ("a.b.Message.field", without a leading dot) is in the file: a message, or a
 * field, oneof, enum, service or method. */
enum ch_symbol ch_symbol_find(struct base_bytes file_descriptor, struct base_bytes name);

#endif

/* sstable_int.h: what sstable_write.c and sstable.c share: the trailer. */
#ifndef TAB_SSTABLE_INT_H
#define TAB_SSTABLE_INT_H

enum { TAB_SSTABLE_TRAILER = 24 };
#define TAB_SSTABLE_MAGIC 0x54535331u /* "1SST" */

#endif

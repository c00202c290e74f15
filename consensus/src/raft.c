/* raft.c: see raft.h. */
#include "raft.h"

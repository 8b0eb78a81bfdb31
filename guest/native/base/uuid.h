/* Identifiers of random digits, which nobody can guess. */

#pragma once

#include <stddef.h>

enum { UUID = 36 }; /* bytes of one as text */

void random_bytes(void *into, size_t size);

void make_uuid(char into[UUID + 1]);
/* To be freed. */
char *new_uuid(void);

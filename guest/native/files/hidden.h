/* Names under which a write is prepared beside its target. No listing and no watch shows them. */

#pragma once

#include "bytes.h"

char *new_hidden_name(void); /* to be freed */
void forget_hidden_name(const char *name);
bool is_hidden(const char *name);
/* Whether a name has their form, also when it is no longer in use. */
bool has_hidden_form(const char *name);
/* The hidden file is about to replace an existing one. */
void will_replace(const char *name);
/* Whether the file that was written under this name has replaced another. */
bool has_replaced(const char *name);

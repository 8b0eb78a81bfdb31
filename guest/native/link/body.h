/* What streams.c does with the body of a request (body.c). */

#pragma once

#include "streams.h"

/* Copies what was lent and is not read yet. */
void body_keep(struct stream *stream);
/* Nobody reads any more. */
void body_discard(struct stream *stream);
/* The host has left: whoever waits for more is told. */
void body_fail(struct stream *stream);

/* Writes files, all or none. Readers see the old content or the new, never a part. */

#pragma once

#include "asked.h"

/* Writes the files of the body and answers with their final sizes. A failure leaves everything unchanged. */
void write_files(struct asked *asked);

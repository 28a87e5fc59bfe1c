/* recovery.c - fuzz target: damage to the log, before it is recovered. What is done, and what must hold: damage.h. */
#include "damage.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    return damage_try(DAMAGED_LOG, bytes, size);
}

/* layout.c - the numbers of the binary interface: where every field is, on 64-bit machines, and what every constant is.
 * Checked by the compiler: main has no work.
 *
 * They never change within a major version; new fields and constants come at the end. abidiff does not see the constants.
 */
#include "opendiskmap.h"

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
#define FIELD(type, field, at, bytes)                                \
    _Static_assert(offsetof(type, field) == (at), #type "." #field); \
    _Static_assert(sizeof(((type *)NULL)->field) == (bytes), #type "." #field)

SIZE(odm_status, 4);

SIZE(odm_options, 56);
FIELD(odm_options, struct_size, 0, 4);
FIELD(odm_options, flags, 4, 4);
FIELD(odm_options, capacity, 8, 8);
FIELD(odm_options, capacity_bytes, 16, 8);
FIELD(odm_options, stripes, 24, 4);
FIELD(odm_options, file_mode, 28, 4);
FIELD(odm_options, wait_ms, 32, 4);
FIELD(odm_options, reserved, 36, 4);
FIELD(odm_options, schema, 40, 8);
FIELD(odm_options, schema_size, 48, 8);

SIZE(odm_error, 256);
FIELD(odm_error, struct_size, 0, 4);
FIELD(odm_error, status, 4, 4);
FIELD(odm_error, os_errno, 8, 4);
FIELD(odm_error, reserved, 12, 4);
FIELD(odm_error, message, 16, 240);

SIZE(odm_progress, 56);
FIELD(odm_progress, struct_size, 0, 4);
FIELD(odm_progress, max_ms, 4, 4);
FIELD(odm_progress, done, 8, 8);
FIELD(odm_progress, total, 16, 8);
FIELD(odm_progress, position, 24, 32);

SIZE(odm_statistics, 200);
FIELD(odm_statistics, struct_size, 0, 4);
FIELD(odm_statistics, stripes, 4, 4);
FIELD(odm_statistics, map_id, 8, 16);
FIELD(odm_statistics, count, 24, 8);
FIELD(odm_statistics, slots, 32, 8);
FIELD(odm_statistics, capacity, 40, 8);
FIELD(odm_statistics, tombstones, 48, 8);
FIELD(odm_statistics, live_bytes, 56, 8);
FIELD(odm_statistics, log_bytes, 64, 8);
FIELD(odm_statistics, dead_bytes, 72, 8);
FIELD(odm_statistics, reserved_bytes, 80, 8);
FIELD(odm_statistics, index_bytes, 88, 8);
FIELD(odm_statistics, unlinked_bytes, 96, 8);
FIELD(odm_statistics, segments, 104, 8);
FIELD(odm_statistics, head, 112, 8);
FIELD(odm_statistics, tail, 120, 8);
FIELD(odm_statistics, watermark, 128, 8);
FIELD(odm_statistics, splits, 136, 8);
FIELD(odm_statistics, lock_waits, 144, 8);
FIELD(odm_statistics, compacted_bytes, 152, 8);
FIELD(odm_statistics, compaction_stopped_at, 160, 8);
FIELD(odm_statistics, recovery_records, 168, 8);
FIELD(odm_statistics, recovery_bytes_cut, 176, 8);
FIELD(odm_statistics, recovery_from, 184, 8);
FIELD(odm_statistics, recovery_kind, 192, 4);
FIELD(odm_statistics, sync_failed, 196, 4);

SIZE(odm_report, 56);
FIELD(odm_report, struct_size, 0, 4);
FIELD(odm_report, reserved, 4, 4);
FIELD(odm_report, records, 8, 8);
FIELD(odm_report, bytes, 16, 8);
FIELD(odm_report, bad_records, 24, 8);
FIELD(odm_report, bad_slots, 32, 8);
FIELD(odm_report, bad_number, 40, 8);
FIELD(odm_report, bad_offset, 48, 8);

SIZE(odm_slice, 8);
FIELD(odm_slice, offset, 0, 4);
FIELD(odm_slice, count, 4, 4);

#define CONSTANT(name, value) _Static_assert((name) == (value), #name)

CONSTANT(ODM_OK, 0);
CONSTANT(ODM_NOT_FOUND, 1);
CONSTANT(ODM_EXISTS, 2);
CONSTANT(ODM_DONE, 3);
CONSTANT(ODM_CONFLICT, 4);
CONSTANT(ODM_WOULD_BLOCK, 5);
CONSTANT(ODM_E_INVALID, -1);
CONSTANT(ODM_E_IO, -2);
CONSTANT(ODM_E_NO_SPACE, -3);
CONSTANT(ODM_E_NO_MEMORY, -4);
CONSTANT(ODM_E_CORRUPT, -5);
CONSTANT(ODM_E_VERSION, -6);
CONSTANT(ODM_E_READ_ONLY, -7);
CONSTANT(ODM_E_TOO_BIG, -8);
CONSTANT(ODM_E_MISMATCH, -9);
CONSTANT(ODM_E_BUSY, -10);
CONSTANT(ODM_E_UNSUPPORTED, -11);

CONSTANT(ODM_READ_ONLY, 1);
CONSTANT(ODM_MUST_EXIST, 2);
CONSTANT(ODM_MUST_CREATE, 4);
CONSTANT(ODM_VERIFY_READS, 8);
CONSTANT(ODM_ANY_FILE_SYSTEM, 16);
CONSTANT(ODM_SALVAGE, 32);

CONSTANT(ODM_OP_PUT, 0);
CONSTANT(ODM_OP_INSERT, 1);
CONSTANT(ODM_OP_REMOVE, 2);

CONSTANT(ODM_RECOVERY_NONE, 0);
CONSTANT(ODM_RECOVERY_KEPT, 1);
CONSTANT(ODM_RECOVERY_CUT, 2);
CONSTANT(ODM_RECOVERY_PRIVATE, 3);
CONSTANT(ODM_RECOVERY_SALVAGED, 4);

CONSTANT(ODM_KEY_SIZE_MAX, 16777215);
CONSTANT(ODM_SCHEMA_SIZE_MAX, 1024);
CONSTANT(ODM_STRIPES_MAX, 64);
CONSTANT(ODM_RECORD_SIZE_MAX, 4294959104);
CONSTANT(ODM_ABSENT, UINT64_MAX);

int main(void)
{
    return 0;
}

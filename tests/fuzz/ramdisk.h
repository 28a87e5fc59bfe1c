/* ramdisk.h - a kernel of its own for the fuzz targets: files, mappings, locks and time in the memory of this process.
 *
 * A target makes some maps for each input; with the real kernel most of its time goes to system calls and faults. Here a
 * mapping is the file itself. What that lacks: a store through a mapping for reading is no SIGSEGV, and a load behind a
 * file's end is no SIGBUS, but with AddressSanitizer it is reported. So replay.c gives each input to the real kernel, too.
 *
 * There is nobody else: who waits is told at once that the time is over, and the clock says so.
 */
#ifndef ODM_TEST_RAMDISK_H
#define ODM_TEST_RAMDISK_H

/* From now on odm__os is this kernel; its root directory is empty. */
void ramdisk_begin(void);
/* The real one again. */
void ramdisk_end(void);
/* Takes away all files. Nothing may be open or mapped: what is, is a leak, and ends the process. */
void ramdisk_empty(void);

#endif

# For platforms without a prebuilt binary: `npm run build` in the package. Needs a C compiler, and node-gyp.
{
  "targets": [
    {
      "target_name": "opendiskmap",
      "sources": ["src/addon.c", "src/opendiskmap.c"],
      "include_dirs": ["src"],
      "cflags": ["-std=gnu11", "-O2", "-fvisibility=hidden", "-pthread"],
      "ldflags": ["-Wl,-Bsymbolic", "-Wl,-z,nodelete", "-pthread"]
    }
  ]
}

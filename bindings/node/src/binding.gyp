# For platforms without a prebuilt binary: `npm run build` in the package. Needs a C compiler, and node-gyp.
# Not in the package's root: there npm, yarn and pnpm would run node-gyp at every install.
{
  "targets": [
    {
      "target_name": "opendiskmap",
      "sources": ["addon.c", "opendiskmap.c"],
      "include_dirs": ["."],
      "cflags": ["-std=gnu11", "-O2", "-fvisibility=hidden", "-pthread"],
      "ldflags": ["-Wl,-Bsymbolic", "-Wl,-z,nodelete", "-pthread"]
    }
  ]
}

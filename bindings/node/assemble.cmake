# Puts the package together in a folder: our files, and the engine as one C file, to be compiled where no binary fits.
#
#   cmake -D FROM=<bindings/node> -D ENGINE=<folder of the amalgamation> -D TO=<folder> -P assemble.cmake

file(REMOVE_RECURSE ${TO}/lib ${TO}/test ${TO}/src ${TO}/binding.gyp)
file(COPY ${FROM}/package.json ${FROM}/README.md ${FROM}/lib ${FROM}/test DESTINATION ${TO})
file(GLOB indexes ${FROM}/index.*)
file(COPY ${indexes} ${ENGINE}/LICENSE ${ENGINE}/LICENSE.xxhash DESTINATION ${TO})
file(COPY ${FROM}/src/addon.c ${FROM}/src/binding.gyp DESTINATION ${TO}/src)
file(COPY ${ENGINE}/opendiskmap.c ${ENGINE}/opendiskmap.h ${ENGINE}/xxhash.h DESTINATION ${TO}/src)

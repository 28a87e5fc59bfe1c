'use strict'
// What `npm pack` makes installs in an empty directory without a compiler, by a lockfile too, and runs.

const { test, describe, before, after } = require('node:test')
const assert = require('node:assert/strict')
const { execFile } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { promisify } = require('node:util')
const { parent, runNode } = require('./support')

const run = promisify(execFile)
const root = path.join(__dirname, '..')

const USE = `
  const map = DiskMap.open('map', { key: str, value: str })
  map.set('hello', 'world')
  console.log(map.get('hello'))
`

describe('the package', () => {
  let directory
  let files

  before(async () => {
    directory = fs.mkdtempSync(path.join(parent, 'odm_node.'))
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', directory], { cwd: root })
    const [packed] = JSON.parse(stdout)
    files = packed.files.map((file) => file.path)
    fs.writeFileSync(path.join(directory, 'package.json'), '{"name": "app", "private": true}')
    await npm('install', `./${packed.filename}`, '--ignore-scripts')
  })

  // Where nothing can be compiled.
  function npm (...args) {
    const env = { ...process.env, CC: '/bin/false', CXX: '/bin/false', MAKE: '/bin/false' }
    return run('npm', [...args, '--offline', '--no-audit', '--no-fund'], { cwd: directory, env })
  }

  after(() => fs.rmSync(directory, { recursive: true }))

  test('holds binary, sources, types and licences, and nothing else', () => {
    for (const name of ['index.js', 'index.mjs', 'index.d.ts', 'index.d.mts', 'README.md', 'LICENSE', 'LICENSE.xxhash',
      'src/binding.gyp', 'src/addon.c', 'src/opendiskmap.c', 'src/opendiskmap.h', 'src/xxhash.h']) {
      assert.ok(files.includes(name), name)
    }
    assert.ok(files.some((name) => /^prebuilds\/linux-\w+-(glibc|musl)\.node$/.test(name)))
    const known = /^(index\.|lib\/|prebuilds\/|src\/|LICENSE|README\.md$|package\.json$)/
    assert.deepEqual(files.filter((name) => !known.test(name)), [])
  })

  test('is installed in an empty directory, and required and imported by its name', async () => {
    fs.writeFileSync(path.join(directory, 'a.js'), `const { DiskMap, str } = require('opendiskmap'); ${USE}`)
    fs.writeFileSync(path.join(directory, 'b.mjs'), `import { DiskMap, str } from 'opendiskmap'; ${USE}`)
    for (const file of ['a.js', 'b.mjs']) {
      const { code, stdout, stderr } = await runNode([file], { cwd: directory, env: { NODE_PATH: '' } })
      assert.equal(code, 0, stderr)
      assert.equal(stdout, 'world\n')
    }
    const { dependencies } = JSON.parse(fs.readFileSync(path.join(directory, 'node_modules/opendiskmap/package.json')))
    assert.equal(dependencies, undefined)
  })

  test('is installed by a lockfile, and rebuilt, without anything being run or compiled', async () => {
    assert.ok(fs.existsSync(path.join(directory, 'package-lock.json')))
    await npm('ci')
    await npm('rebuild')
    const home = path.join(directory, 'node_modules/opendiskmap')
    assert.ok(!fs.existsSync(path.join(home, 'binding.gyp')), 'what yarn 1 and pnpm look for')
    for (const made of ['build', 'src/build']) assert.ok(!fs.existsSync(path.join(home, made)), made)
    const { scripts } = JSON.parse(fs.readFileSync(path.join(home, 'package.json')))
    for (const name of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[name], undefined)
  })

  test('says what is wrong where it has no binary', async () => {
    fs.renameSync(path.join(directory, 'node_modules/opendiskmap/prebuilds'), path.join(directory, 'away'))
    const { stdout } = await runNode(['-e', 'try { require("opendiskmap") } catch (error) { console.log(error.code, error.message) }'],
      { cwd: directory, env: { NODE_PATH: '' } })
    assert.match(stdout, /^ODM_E_UNSUPPORTED opendiskmap has no binary for this platform, linux-\w+-\w+\. .*npm run build/)
  })

  test('is compiled from the sources it carries', async (t) => {
    const headers = ['/usr', '/usr/local', path.dirname(path.dirname(process.execPath))]
      .find((prefix) => fs.existsSync(path.join(prefix, 'include/node/common.gypi')))
    if (headers === undefined) return t.skip('the headers of Node.js are not installed')
    const home = path.join(directory, 'node_modules/opendiskmap') // The test above has taken its binary away.
    await run('npm', ['run', 'build'], { cwd: home, env: { ...process.env, npm_config_nodedir: headers }, maxBuffer: 2 ** 26 })
    const { code, stdout, stderr } = await runNode(['-e', `const { DiskMap, str } = require('opendiskmap'); ${USE}`],
      { cwd: directory, env: { NODE_PATH: '' } })
    assert.equal(code, 0, stderr)
    assert.equal(stdout, 'world\n')
  })
})

test('the binary exports nothing of the engine, and needs only the C library', async (t) => {
  for (const name of fs.readdirSync(path.join(root, 'prebuilds'))) {
    const binary = path.join(root, 'prebuilds', name)
    let symbols, dynamic
    try {
      symbols = (await run('nm', ['-D', '--defined-only', binary])).stdout
      dynamic = (await run('readelf', ['-d', binary])).stdout
    } catch (error) {
      if (error.code === 'ENOENT') return t.skip('binutils are not installed')
      throw error
    }
    const exported = [...symbols.matchAll(/ \w (\S+)$/gm)].map((match) => match[1].split('@')[0])
    assert.deepEqual(exported.filter((symbol) => !/^(napi_register_module_v1|node_api_module_get_api_version_v1|_init|_fini)$/.test(symbol)), [])
    assert.ok(exported.includes('napi_register_module_v1'))
    const needed = [...dynamic.matchAll(/NEEDED.*\[(.+)\]/g)].map((match) => match[1])
    assert.deepEqual(needed.filter((library) => !/^(lib(c|pthread|dl|rt)|ld-linux-[\w-]+)\.so/.test(library)), [])
  }
})

'use strict'
// The types, by the TypeScript compiler: types/uses.cts for `require`, types/uses.mts for `import`, types/esnext with
// the newest library. What they must refuse is marked there by @ts-expect-error, and is an error if it is accepted.
//
//   node types.test.js [folder with node_modules of package.json's devDependencies]
//
// Exit code 77, "skipped", without the compiler.

const { test } = require('node:test')
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { runNode } = require('./support')

const tools = path.join(path.resolve(process.argv[2] ?? path.join(__dirname, '..')), 'node_modules')
const compiler = path.join(tools, 'typescript', 'bin', 'tsc')

if (!fs.existsSync(compiler)) {
  console.log(`skipped: there is no ${compiler}`)
  process.exit(77)
}

for (const project of ['types', 'types/esnext']) {
  test(`${project} accept and refuse what they should`, async () => {
    const types = path.join(tools, '@types')
    const { code, stdout } = await runNode([compiler, '-p', path.join(__dirname, project), '--typeRoots', types])
    assert.equal(code, 0, stdout)
  })
}

test('everything that is public has its documentation', () => {
  const lines = fs.readFileSync(path.join(__dirname, '..', 'index.d.ts'), 'utf8').split('\n')
  let isPublic = false
  for (const [i, line] of lines.entries()) {
    if (/^(export )?(interface|class) /.test(line)) isPublic = true
    else if (line.startsWith('}')) isPublic = false
    const isMember = isPublic && /^ {2}(static |readonly )*[\w[][\w.\]]*[?(<:]/.test(line)
    if (isMember) assert.match(lines[i - 1], /\*\/$/, line)
  }
})

test('everything that is exported has a type, and everything that has a type is there', () => {
  const odm = require('opendiskmap')
  const text = fs.readFileSync(path.join(__dirname, '..', 'index.d.ts'), 'utf8')
  const declared = [...text.matchAll(/^export (?:const|class|function) (\w+)/gm)].map((match) => match[1])
  assert.deepEqual(declared.sort(), Object.keys(odm).sort())
  const methods = text.slice(text.indexOf('export class DiskMap<'), text.indexOf('interface ReadyMade'))
  for (const name of Object.getOwnPropertyNames(odm.DiskMap.prototype)) {
    if (name === 'constructor') continue
    assert.match(methods, new RegExp(`^  (readonly )?${name}[<(:]`, 'm'), name)
  }
})

test('import gives the very same as require', async () => {
  const required = require('opendiskmap')
  const imported = await import('opendiskmap')
  assert.equal(imported.default, required)
  for (const name of Object.keys(required)) assert.equal(imported[name], required[name], name)
})

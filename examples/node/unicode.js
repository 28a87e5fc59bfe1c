#!/usr/bin/env node
'use strict'
// unicode.js - the maps that examples/unicode/unicode.c has made, from Node.js: code point -> name, name -> code point.
//
//     node unicode.js DIRECTORY lookup U+2603 'BLACK CHESS QUEEN'
//     node unicode.js DIRECTORY cost                  asks for every entry, and measures
//     node unicode.js DIRECTORY name U+F8FF 'SOME NAME'
//     node unicode.js DIRECTORY forget U+F8FF
const path = require('node:path')
const { DiskMap } = require('opendiskmap')

const [, , directory, command, ...words] = process.argv
const open = (name) => DiskMap.open(path.join(directory, name), { mustExist: true }) // Says itself what it holds.
const names = open('names') // u32 to str
const characters = open('characters') // str to u32

const codeOf = (word) => /^U\+[0-9A-F]{1,6}$/i.test(word) ? parseInt(word.slice(2), 16) : undefined

function lookup (word) {
  const code = codeOf(word) ?? characters.get(word.toUpperCase())
  const name = code === undefined ? undefined : names.get(code)
  if (name === undefined) throw new Error(`no character ${word}`)
  return `${String.fromCodePoint(code)}  U+${code.toString(16).toUpperCase().padStart(4, '0')}  ${name}`
}

function cost () {
  const all = [...names.values()].sort() // Another order than the map's.
  const start = process.hrtime.bigint()
  let wrong = 0
  for (const name of all) if (characters.get(name) === undefined) wrong++
  const ns = Number(process.hrtime.bigint() - start) / all.length
  return `${all.length} look-ups by name, ${ns.toFixed(0)} ns per look-up, ${wrong} wrong`
}

const commands = {
  lookup: () => words.map(lookup).join('\n   '),
  cost,
  name: () => names.set(codeOf(words[0]), words[1]) && `named ${words[0]}`,
  forget: () => `forgot ${words[0]}: ${names.delete(codeOf(words[0]))}`
}
console.log(`   ${commands[command]()}`)

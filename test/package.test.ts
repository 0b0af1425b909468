import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'

// The package as a user gets it: packed, installed into an empty folder, called, imported and type-checked there.

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'lowrank-package-'))
const packed: string[] = []

function run(command: string, args: readonly string[], cwd = folder): string {
  // The variables of the surrounding `npm test` would make npm believe it still works in the repository.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)))
  return execFileSync(command, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

beforeAll(() => {
  expect(existsSync(join(root, 'dist/cli.js')), 'npm run build comes first').toBe(true)
  // Without scripts: `prepare` would build again under the feet of the other tests.
  const output = run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], root)
  const [tarball] = JSON.parse(output) as { filename: string; files: { path: string }[] }[]
  packed.push(...(tarball?.files.map((file) => file.path) ?? []))
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }))
  run('npm', ['install', '--ignore-scripts', '--prefer-offline', `./${tarball?.filename}`])
}, 300_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

test('holds the build with the sources that its maps lead to, the documentation and the licence, but no tests', () => {
  expect(packed).toEqual(
    expect.arrayContaining(['package.json', 'README.md', 'LICENSE', 'dist/cli.js', 'dist/index.js']),
  )
  expect(packed).toEqual(expect.arrayContaining(['dist/types/index.d.ts', 'dist/browser/draw.js', 'docs/install.md']))
  expect(packed).toEqual(expect.arrayContaining(['dist/types/index.d.ts.map', 'src/index.ts']))
  expect(packed.filter((path) => /\.(test|fixture)\.|^test\//.test(path))).toEqual([])
})

test('the command runs', () => {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  expect(run('npx', ['--no-install', 'lowrank', '--version'])).toBe(`${version}\n`)
  expect(run('npx', ['--no-install', 'lowrank', 'train', '--help'])).toContain('--lora-alpha N')
})

test('a report can be made: style, script and the plot library are there', () => {
  writeFileSync(join(folder, 'run.json'), '{"status": "done", "startedAt": "2026-01-02T03:04:05.000Z"}')
  expect(run('npx', ['--no-install', 'lowrank', 'report', '.'])).toBe('report in report.html\n')
  const page = readFileSync(join(folder, 'report.html'), 'utf8')
  for (const part of ['uPlot', '--curve-0', 'ResizeObserver']) expect(page.includes(part), part).toBe(true)
})

test('the library can be imported', () => {
  const script = "import * as lowrank from 'lowrank'; console.log(Object.keys(lowrank).sort().join(' '))"
  const names = run(process.execPath, ['--input-type=module', '--eval', script]).trim().split(' ')
  expect(names).toEqual(expect.arrayContaining(['evaluate', 'finetune', 'loadModel']))
})

test('the runtime loads, though its install script did not run', () => {
  const script = "import('onnxruntime-node').then((ort) => console.log(typeof ort.InferenceSession.create))"
  expect(run(process.execPath, ['--input-type=module', '--eval', script])).toBe('function\n')
})

test('nothing is written outside the output folder, and nothing is collected', () => {
  // The training of a user who has never run it: an empty home, and every variable that names another place unset.
  const [home, temporary] = [join(folder, 'home'), join(folder, 'temporary')]
  for (const made of [home, temporary]) mkdirSync(made)
  const quickstart = join(root, 'examples/quickstart')
  const others = Object.entries(process.env).filter(([name]) => !/^(npm_|XDG_|ORT_|TMP|TEMP)/i.test(name))
  const env = { ...Object.fromEntries(others), HOME: home, USERPROFILE: home, TMPDIR: temporary, TEMP: temporary }
  const lowrank = (...args: string[]): void => {
    const main = join(folder, 'node_modules/lowrank/dist/cli.js')
    execFileSync(process.execPath, [main, ...args], { cwd: folder, env, stdio: 'ignore' })
  }
  const before = listed()
  lowrank('eval', '--model', join(quickstart, 'model'), '--data', join(quickstart, 'valid.jsonl'))
  expect(listed()).toEqual(before)
  const data = [
    '--train',
    join(quickstart, 'valid.jsonl'),
    '--max-steps',
    '1',
    '--max-length',
    '64',
    '--output-dir',
    'out',
  ]
  lowrank('train', '--model', join(quickstart, 'model'), ...data)
  expect(listed().filter((path) => !/^out([/\\]|$)/.test(path))).toEqual(before)
})

/** Every file and folder there is, but for those that npm has installed. */
function listed(): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => !path.startsWith('node_modules'))
    .sort()
}

test('the graph can be imported by itself, without a runtime', () => {
  const script = `import('lowrank/graph').then(({ b, program, toOnnx }) => {
    const x = b.input('x', { dtype: 'f32', shape: ['n'] })
    const inputs = [{ name: 'x', value: x }]
    console.log(toOnnx(program({ name: 'p', inputs, outputs: [{ name: 'y', value: b.silu(x) }] })).length > 50)
  })`
  expect(run(process.execPath, ['--input-type=module', '--eval', script])).toBe('true\n')
})

test('types are there, for NodeNext and for bundlers', () => {
  writeFileSync(
    join(folder, 'user.ts'),
    `import { finetune, type TrainConfigInput } from 'lowrank'
const config: TrainConfigInput = { model: 'm', train: 't', outputDir: 'o', r: 8, targetModules: 'all-linear' }
for await (const event of finetune(config)) if (event.type === 'step') console.log(event.loss.toFixed(3))
// @ts-expect-error a misspelt option
const wrong: TrainConfigInput = { model: 'm', train: 't', outputDir: 'o', lora_alfa: 8 }
console.log(wrong)
`,
  )
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  const common = ['--noEmit', '--strict', '--target', 'es2022', 'user.ts']
  const variants = [
    // A Node.js project, which has @types/node: every declaration of the package is checked, not only used.
    [
      '--module',
      'nodenext',
      '--skipLibCheck',
      'false',
      '--typeRoots',
      join(root, 'node_modules/@types'),
      '--types',
      'node',
    ],
    ['--module', 'esnext', '--moduleResolution', 'bundler', '--skipLibCheck', '--types', ''],
  ]
  const errors = variants.map((options) => {
    try {
      return run(process.execPath, [tsc, ...options, ...common])
    } catch (error) {
      // tsc tells its errors on standard output.
      return String((error as { stdout?: unknown }).stdout ?? error)
    }
  })
  expect(errors).toEqual(['', ''])
})

test('the lock file keeps install scripts from running', () => {
  // onnxruntime-node's script downloads CUDA libraries and fails where it cannot. npm runs the install scripts of packages
  // that the lock file marks with hasInstallScript; npm from 11 on asks `allowScripts` of package.json besides.
  // After an update of these packages, remove the mark from package-lock.json again.
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: boolean; os?: string[] }>
  }
  const { allowScripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    allowScripts: Record<string, boolean>
  }
  const marked = Object.entries(packages).filter(([, entry]) => entry.hasInstallScript === true)
  expect(marked.map(([path]) => path)).toEqual([])
  expect(packages['node_modules/onnxruntime-node']).toBeDefined()
  expect(allowScripts['onnxruntime-node']).toBe(false)
})

/*
 * src/storage/kernels/bytes.ts, WebAssembly made of kernels/kernels.ts.
 *
 *     npm run generate:kernels        # writes it; scripts/kernels.test.ts fails where it is stale
 */
import asc from 'assemblyscript/asc'
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

/** 64 KiB each: what `kernels.ts` has in memory. */
const pages = 4

/** The text of the file. */
export async function kernelsFile(): Promise<string> {
  const made: Uint8Array[] = []
  const options = ['--runtime', 'stub', '--noAssert', '--enable', 'simd', '--use', 'abort=', '-O3']
  const memory = ['--initialMemory', String(pages), '--maximumMemory', String(pages)]
  const { error } = await asc.main(['kernels/kernels.ts', '--outFile', 'kernels.wasm', ...options, ...memory], {
    writeFile: (_, contents) => void made.push(Buffer.from(contents)),
  })
  const [bytes] = made
  if (bytes === undefined) throw new Error('kernels/kernels.ts does not compile', { cause: error })
  return [
    '// Made of kernels/kernels.ts by `npm run generate:kernels`.',
    '',
    '/** WebAssembly, in base64. */',
    'export const kernelBytes =',
    `  '${Buffer.from(bytes).toString('base64')}'`,
    '',
  ].join('\n')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync('src/storage/kernels/bytes.ts', await kernelsFile())
}

import { createRequire } from 'node:module'

/** The version of an installed package, or of this one. */
export function versionOf(name: 'lowrank' | 'onnxruntime-node'): string {
  const { version } = createRequire(import.meta.url)(`${name}/package.json`) as { version: string }
  return version
}

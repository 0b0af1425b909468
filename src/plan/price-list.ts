/** Prices to begin with; `examples/prices.json` is the same list, to be copied and changed. */
export const ownPrices = {
  date: '2026-11-27',
  source:
    "Round figures for on-demand Linux machines of large clouds in a US region, entered by hand, not asked for: look up your own provider's list and change them (lowrank plan --prices FILE)",
  currency: 'USD',
  machines: [
    { name: '4 CPU cores, 16 GB', perHour: 0.2, memoryGB: 16 },
    { name: '8 CPU cores, 32 GB', perHour: 0.4, memoryGB: 32 },
    { name: '16 CPU cores, 64 GB', perHour: 0.8, memoryGB: 64 },
    { name: '32 CPU cores, 128 GB', perHour: 1.6, memoryGB: 128 },
    { name: '64 CPU cores, 256 GB', perHour: 3.2, memoryGB: 256 },
    { name: 'T4 16 GB', perHour: 0.55, memoryGB: 16, gpuMemoryGB: 16 },
    { name: 'L4 24 GB', perHour: 0.8, memoryGB: 16, gpuMemoryGB: 24 },
    { name: 'A10G 24 GB', perHour: 1.0, memoryGB: 16, gpuMemoryGB: 24 },
    { name: 'L40S 48 GB', perHour: 1.9, memoryGB: 32, gpuMemoryGB: 48 },
    { name: 'A100 80 GB', perHour: 3.7, memoryGB: 170, gpuMemoryGB: 80 },
    { name: 'H100 80 GB', perHour: 5.0, memoryGB: 200, gpuMemoryGB: 80 },
  ],
}

// ONNX Runtime collects telemetry by default since 1.29, on Linux and macOS too: it writes a device id and a database into the user's
// cache folder and holds an address to upload to. It looks at this variable when its library is first loaded, and only at that of
// the main thread: whoever starts a thread that computes imports this file, and so does whoever imports the runtime. A user who
// has set the variable has decided.
process.env['ORT_DISABLE_TELEMETRY'] ??= '1'

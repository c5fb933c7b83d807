// The dev server is the one host that the browser sees: the session's cookie
// belongs to it. What is not a file goes on to the Go program.
const behind = process.env.BEHIND ?? "http://127.0.0.1:8081";

export default {
  server: { port: Number(process.env.PORT ?? 5173), strictPort: true, proxy: { "/auth": behind, "/api": behind } },
};

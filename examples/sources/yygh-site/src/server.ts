import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { GatewayDown, Refused } from './api'
import { problemPage } from './render'
import { route } from './routes'

const version = process.env.TAG ?? 'dev'
const port = Number(process.env.PORT ?? 3000)
const host = process.env.HOST

async function answer(request: IncomingMessage, response: ServerResponse) {
  response.setHeader('X-Service', 'yygh-site')
  response.setHeader('X-Version', version)
  try {
    const reply = await route(request)
    response.statusCode = reply.status
    if (reply.location) {
      response.setHeader('Location', reply.location)
    }
    response.setHeader('Content-Type', reply.type ?? 'text/html; charset=utf-8')
    response.end(reply.body)
  } catch (error) {
    await fail(response, error)
  }
}

async function fail(response: ServerResponse, error: unknown) {
  let status = 500
  let message = '页面出错了'
  if (error instanceof GatewayDown) {
    status = 502
    message = `${error.message}，请稍后再试`
  } else if (error instanceof Refused) {
    status = error.status
    message = error.message
  }
  if (status >= 500) {
    console.error(status, error)
  }
  response.statusCode = status
  response.setHeader('Content-Type', 'text/html; charset=utf-8')
  response.end(await problemPage(status, message))
}

const server = createServer((request, response) => void answer(request, response))
server.listen(port, host, () => console.log(`yygh-site ${version} listens on ${port}`))

// Requests under way are finished; connections that only wait are closed.
function stop() {
  server.close(() => process.exit(0))
  server.closeIdleConnections()
}

process.on('SIGTERM', stop)
process.on('SIGINT', stop)

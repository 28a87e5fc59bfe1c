export * from './index.js'
import * as opendiskmap from './index.js'
export default opendiskmap

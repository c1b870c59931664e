// The page of a 3D city: loads its 3D Tiles, colours them, tells about the building clicked.
// Everything comes from this folder or the one beside it; nothing is asked of the network.
import {
	AmbientLight, BufferAttribute, BufferGeometry, Color, DirectionalLight, Fog, HemisphereLight,
	Matrix4, Mesh, MeshLambertMaterial, NoToneMapping, PerspectiveCamera, Raycaster, Scene,
	SRGBColorSpace, TextureLoader, Vector2, Vector3, WebGLRenderer,
} from 'three';
import { MapControls } from 'three/examples/jsm/controls/MapControls.js';
import { TilesRenderer } from '3d-tiles-renderer/three';
import { GLTFExtensionsPlugin } from '3d-tiles-renderer/three/plugins';

const config = JSON.parse( document.getElementById( 'qala-config' ).textContent );
let lang = config.lang;
let words = config.texts[ lang ];
const byId = id => document.getElementById( id );

// tiles packed into the page's folder, for pages opened as a file
class PackedTiles {

	constructor( files ) {

		this.name = 'PACKED_TILES';
		this.files = files;

	}

	fetchData( url ) {

		const name = decodeURIComponent( String( url ).split( '/tiles/' ).pop().split( '?' )[ 0 ] );
		const text = this.files[ name ];
		if ( text === undefined ) return Promise.resolve( new Response( '', { status: 404 } ) );
		const raw = atob( text );
		const bytes = new Uint8Array( raw.length );
		for ( let i = 0; i < raw.length; i ++ ) bytes[ i ] = raw.charCodeAt( i );
		return Promise.resolve( new Response( bytes ) );

	}

}

function bytesOf( text ) {

	const raw = atob( text );
	const bytes = new Uint8Array( raw.length );
	for ( let i = 0; i < raw.length; i ++ ) bytes[ i ] = raw.charCodeAt( i );
	return bytes;

}

const loadScript = src => new Promise( ( done, failed ) => {

	const tag = document.createElement( 'script' );
	tag.src = src;
	tag.onload = done;
	tag.onerror = failed;
	document.head.appendChild( tag );

} );

const state = { mode: 'class', picked: null, models: new Map(), ready: false, frames: 0 };
window.qala = state;

const SKY = new Color( 0xdde7ee );
const renderer = new WebGLRenderer( { antialias: true, preserveDrawingBuffer: config.test === true } );
renderer.setPixelRatio( Math.min( window.devicePixelRatio, 2 ) );
renderer.toneMapping = NoToneMapping;
byId( 'view' ).appendChild( renderer.domElement );
const scene = new Scene();
scene.background = SKY;
const camera = new PerspectiveCamera( 45, 1, 1, 1e5 );
const controls = new MapControls( camera, renderer.domElement );
controls.enableDamping = false;
controls.maxPolarAngle = 1.5;
controls.screenSpacePanning = false;
controls.zoomToCursor = true;
scene.add( new HemisphereLight( 0xffffff, 0xb9b2a6, 1.5 ) );
scene.add( new AmbientLight( 0xffffff, 0.2 ) );
const sun = new DirectionalLight( 0xfff8ee, 1.8 );
sun.position.set( - 0.6, 1, 0.45 );
scene.add( sun );

const linear = rgb => new Color().setRGB( rgb[ 0 ] / 255, rgb[ 1 ] / 255, rgb[ 2 ] / 255, SRGBColorSpace );
const PALETTES = {
	class: row => linear( config.classes[ row.class ] || config.classes.other ),
	source: row => linear( config.sources[ row.height_source ] || [ 200, 200, 200 ] ),
	height: row => {

		let i = 0;
		while ( i < config.heightColours.length - 1 && row.height >= config.heightBreaks[ i + 1 ] ) i ++;
		return linear( config.heightColours[ i ] );

	},
};
const PICKED = new Color( 0x1457ff );

function paint( model ) {

	const { geometry, rows, features, roof } = model;
	const colour = geometry.attributes.color;
	const palette = PALETTES[ state.mode ];
	// a building of parts shines as one
	const colours = rows.map( row => ( state.picked !== null && ( row.parent || row.id ) === state.picked ) ? PICKED : palette( row ) );
	const out = colour.array;
	for ( let i = 0; i < features.length; i ++ ) {

		const c = colours[ features[ i ] ];
		const shade = roof[ i ] ? 0.86 : 1;
		out[ 4 * i ] = 255 * c.r * shade;
		out[ 4 * i + 1 ] = 255 * c.g * shade;
		out[ 4 * i + 2 ] = 255 * c.b * shade;
		out[ 4 * i + 3 ] = 255;

	}

	colour.needsUpdate = true;

}

function repaint() {

	state.models.forEach( paint );
	draw();

}

function onModel( { scene: root } ) {

	root.traverse( mesh => {

		if ( ! mesh.isMesh || ! mesh.geometry.attributes._feature_id_0 ) return;
		const meta = mesh.userData.structuralMetadata;
		const ids = mesh.geometry.attributes._feature_id_0;
		const features = new Uint32Array( ids.count );
		let count = 0;
		for ( let i = 0; i < ids.count; i ++ ) {

			features[ i ] = ids.getX( i );
			count = Math.max( count, features[ i ] + 1 );

		}

		const rows = [];
		for ( let i = 0; i < count; i ++ ) rows.push( { ...meta.getPropertyTableData( 0, i ) } );
		const normal = mesh.geometry.attributes.normal;
		const roof = new Uint8Array( ids.count );
		for ( let i = 0; i < ids.count; i ++ ) roof[ i ] = normal.getY( i ) > 0.5 ? 1 : 0;
		mesh.geometry.setAttribute( 'color', new BufferAttribute( new Uint8Array( 4 * ids.count ), 4, true ) );
		mesh.material = new MeshLambertMaterial( { vertexColors: true } );
		const model = { geometry: mesh.geometry, rows, features, roof };
		mesh.userData.model = model;
		state.models.set( mesh, model );
		paint( model );

	} );
	draw();

}

function onDispose( { scene: root } ) {

	root.traverse( mesh => state.models.delete( mesh ) );

}

function addGround() {

	const ground = window.QALA_GROUND;
	const geometry = new BufferGeometry();
	geometry.setAttribute( 'position', new BufferAttribute( new Float32Array( bytesOf( ground.positions ).buffer ), 3 ) );
	// the picture's first row is its northernmost
	const uv = new Float32Array( bytesOf( ground.uv ).buffer ).map( ( v, i ) => i % 2 ? 1 - v : v );
	geometry.setAttribute( 'uv', new BufferAttribute( uv, 2 ) );
	geometry.setIndex( new BufferAttribute( new Uint32Array( bytesOf( ground.triangles ).buffer ), 1 ) );
	geometry.computeVertexNormals();
	// slopes are shaded as if three times as steep, so that hills are seen under a high sun
	const normal = geometry.attributes.normal;
	for ( let i = 0; i < normal.count; i ++ ) {

		const v = new Vector3( 3 * normal.getX( i ), normal.getY( i ), 3 * normal.getZ( i ) ).normalize();
		normal.setXYZ( i, v.x, v.y, v.z );

	}

	const texture = new TextureLoader().load( 'data:image/png;base64,' + ground.image, draw );
	texture.colorSpace = SRGBColorSpace;
	texture.anisotropy = renderer.capabilities.getMaxAnisotropy();
	const mesh = new Mesh( geometry, new MeshLambertMaterial( { map: texture, polygonOffset: true, polygonOffsetFactor: 2, polygonOffsetUnits: 2 } ) );
	scene.add( mesh );
	state.ground = mesh;

}

let tiles;
let wanted = 2;
function draw( frames = 2 ) {

	wanted = Math.max( wanted, typeof frames === 'number' ? frames : 2 );

}

function home( view = config.home ) {

	const [ x, y, z ] = view.target;
	const far = view.distance;
	controls.target.set( x, y, z );
	camera.position.set( x - 0.25 * far, y + 0.6 * far, z + 0.75 * far );
	controls.update();
	draw();

}

// look at a place from near: used by links (#e,n,distance) and by tests
state.look = ( east, north, distance, height = 0 ) => {

	controls.target.set( east, height, - north );
	camera.position.set( east - 0.3 * distance, height + 0.55 * distance, - north + 0.78 * distance );
	controls.update();
	draw();

};

state.home = () => home();

state.setMode = mode => {

	state.mode = mode;
	document.querySelectorAll( '#modes button' ).forEach( b => b.classList.toggle( 'on', b.dataset.mode === mode ) );
	legend();
	repaint();

};

function legend() {

	const box = byId( 'legend' );
	box.textContent = '';
	const shares = config.shares[ state.mode ];
	for ( const [ text, rgb, key ] of words.legends[ state.mode ] ) {

		const row = document.createElement( 'div' );
		const swatch = document.createElement( 'i' );
		const share = document.createElement( 'b' );
		swatch.style.background = `rgb(${ rgb.join() })`;
		const part = 100 * ( shares[ key ] || 0 );
		share.textContent = part > 0 && part < 1 ? '< 1 %' : `${ Math.round( part ) } %`;
		row.append( swatch, text, share );
		box.append( row );

	}

}

// every text again in another language
state.setLang = code => {

	lang = code;
	words = config.texts[ code ];
	document.documentElement.lang = code;
	document.title = words.title;
	document.querySelectorAll( '[data-text]' ).forEach( e => ( e.textContent = words[ e.dataset.text ] ) );
	document.querySelectorAll( '#langs button' ).forEach( b => b.classList.toggle( 'on', b.dataset.lang === code ) );
	byId( 'about' ).textContent = words.about.join( ' · ' );
	byId( 'north' ).title = words.north;
	legend();
	tell( state.row );

};

// a bar of a round length, as long as it is at the place looked at, and the north
function scale() {

	const height = renderer.domElement.clientHeight;
	const metres = 2 * camera.position.distanceTo( controls.target ) * Math.tan( camera.fov * Math.PI / 360 ) / height;
	const most = 120 * metres;
	const power = 10 ** Math.floor( Math.log10( most ) );
	const length = [ 5, 2, 1 ].find( n => n * power <= most ) * power;
	const bar = byId( 'scale' );
	bar.querySelector( 'i' ).style.width = `${ length / metres }px`;
	bar.querySelector( 'span' ).textContent = length >= 1000 ? `${ length / 1000 } ${ lang === 'en' ? 'km' : 'км' }` : `${ length } ${ lang === 'en' ? 'm' : 'м' }`;
	byId( 'north' ).firstChild.style.transform = `rotate(${ controls.getAzimuthalAngle() }rad)`;

}

function north() {

	const offset = camera.position.clone().sub( controls.target );
	const flat = Math.hypot( offset.x, offset.z );
	camera.position.set( controls.target.x, camera.position.y, controls.target.z + flat );
	controls.update();
	draw();

}

const known = v => v !== undefined && v !== null && v !== '' && ! Number.isNaN( v );
const number = ( v, digits = 0 ) => Number( v ).toLocaleString( lang === 'kk' ? 'ru' : lang, { maximumFractionDigits: digits } );

const fill = ( text, values ) => text.replace( /\{(\w+)\}/g, ( all, name ) => values[ name ] );

function tell( row ) {

	state.row = row;
	const panel = byId( 'panel' );
	panel.hidden = ! row;
	panel.textContent = '';
	if ( ! row ) return;
	const title = document.createElement( 'h2' );
	const kinds = Object.fromEntries( words.legends.class.map( ( [ text, , key ] ) => [ key, text ] ) );
	const sources = Object.fromEntries( words.legends.source.map( ( [ text, , key ] ) => [ key, text ] ) );
	title.textContent = row.name || ( row.class !== 'other' && kinds[ row.class ] ) || words.building;
	const close = document.createElement( 'button' );
	close.className = 'close';
	close.textContent = '×';
	close.title = words.close;
	close.addEventListener( 'click', unpick );
	const list = document.createElement( 'dl' );
	const add = ( word, value ) => {

		const dt = document.createElement( 'dt' );
		const dd = document.createElement( 'dd' );
		dt.textContent = word;
		dd.textContent = value;
		list.append( dt, dd );

	};

	const c = words.columns;
	add( c.class, kinds[ row.class ] || row.class );
	if ( known( row.kind ) && row.kind !== 'yes' ) add( c.kind, row.kind );
	add( c.height.replace( /,[^,]*$/, '' ), fill( words.height_value, { height: number( row.height, 1 ), low: number( row.height_lo, 1 ), high: number( row.height_hi, 1 ) } ) );
	add( c.height_source, sources[ row.height_source ] || row.height_source );
	if ( known( row.roof_shape ) && row.roof_shape !== 'unknown' ) add( c.roof_shape, words.roofs[ row.roof_shape ] || row.roof_shape );
	add( c.floor_area.replace( /,[^,]*$/, '' ), known( row.floor_area ) ? fill( words.floors_value, { area: number( row.floor_area ) } ) : words.unknown );
	if ( known( row.people ) ) add( c.people, number( row.people, 1 ) );
	add( c.lod, words.lods[ row.lod ] || row.lod );
	if ( known( row.parent ) ) add( c.parent, row.parent );
	add( c.id, row.id );
	panel.append( close, title, list );

}

function unpick() {

	state.picked = null;
	tell( null );
	repaint();

}

const ray = new Raycaster();
function pick( x, y ) {

	const box = renderer.domElement.getBoundingClientRect();
	ray.setFromCamera( new Vector2( 2 * ( x - box.left ) / box.width - 1, 1 - 2 * ( y - box.top ) / box.height ), camera );
	ray.firstHitOnly = true;
	const hit = ray.intersectObject( tiles.group, true )[ 0 ];
	const model = hit && hit.object.userData.model;
	const row = model ? model.rows[ model.features[ hit.face.a ] ] : null;
	state.picked = row ? row.parent || row.id : null;
	tell( row );
	repaint();
	return row;

}

state.pick = pick;

let down = null;
renderer.domElement.addEventListener( 'pointerdown', e => ( down = [ e.clientX, e.clientY ] ) );
renderer.domElement.addEventListener( 'pointerup', e => {

	if ( down && e.button === 0 && Math.hypot( e.clientX - down[ 0 ], e.clientY - down[ 1 ] ) < 4 ) pick( e.clientX, e.clientY );
	down = null;

} );
controls.addEventListener( 'change', () => draw() );
window.addEventListener( 'keydown', e => { if ( e.key === 'Escape' ) unpick(); } );

function resize() {

	const box = byId( 'view' );
	camera.aspect = box.clientWidth / Math.max( box.clientHeight, 1 );
	camera.updateProjectionMatrix();
	renderer.setSize( box.clientWidth, box.clientHeight );
	if ( tiles ) tiles.setResolutionFromRenderer( camera, renderer );
	draw();

}

function frame() {

	requestAnimationFrame( frame );
	tiles.update();
	const busy = tiles.loadProgress < 1;
	if ( busy ) draw( 1 );
	state.busy = busy;
	if ( wanted > 0 ) {

		wanted --;
		const distance = camera.position.distanceTo( controls.target );
		camera.near = Math.max( distance / 200, 0.5 );
		camera.far = Math.max( distance * 12, config.home.distance * 4 );
		scene.fog = new Fog( SKY, camera.far * 0.35, camera.far );
		camera.updateProjectionMatrix();
		camera.updateMatrixWorld();
		renderer.render( scene, camera );
		scale();
		state.frames ++;
		if ( ! busy && state.models.size ) state.ready = true;

	}

}

async function start() {

	state.setLang( lang );
	const packed = location.protocol === 'file:';
	if ( packed ) {

		try {

			await loadScript( 'tiles.js' );

		} catch {

			byId( 'notice' ).textContent = words.serve;
			byId( 'notice' ).hidden = false;
			return;

		}

	}

	const url = packed ? 'http://packed/tiles/tileset.json' : new URL( '../tiles/tileset.json', location.href ).href;
	tiles = new TilesRenderer( url );
	if ( packed ) tiles.registerPlugin( new PackedTiles( window.QALA_TILES ) );
	tiles.registerPlugin( new GLTFExtensionsPlugin( { metadata: true } ) );
	tiles.errorTarget = 12;
	tiles.lruCache.minSize = 2000;
	tiles.lruCache.maxSize = 4000;
	tiles.addEventListener( 'load-model', onModel );
	tiles.addEventListener( 'dispose-model', onDispose );
	tiles.setCamera( camera );
	const matrix = new Matrix4().fromArray( config.toLocal );
	matrix.decompose( tiles.group.position, tiles.group.quaternion, tiles.group.scale );
	tiles.group.updateMatrixWorld( true );
	scene.add( tiles.group );
	resize();
	window.addEventListener( 'resize', resize );
	addGround();
	const place = location.hash.slice( 1 ).split( ',' ).map( Number );
	if ( place.length >= 3 && place.every( Number.isFinite ) ) state.look( ...place ); else home( config.start );
	document.querySelectorAll( '#modes button' ).forEach( b => b.addEventListener( 'click', () => state.setMode( b.dataset.mode ) ) );
	byId( 'home' ).addEventListener( 'click', () => home() );
	state.camera = camera;
	state.controls = controls;
	state.tiles = tiles;
	state.screen = ( x, y, z ) => {

		const p = new Vector3( x, y, z ).project( camera );
		const box = renderer.domElement.getBoundingClientRect();
		return [ box.left + ( p.x + 1 ) / 2 * box.width, box.top + ( 1 - p.y ) / 2 * box.height ];

	};

	document.querySelectorAll( '#langs button' ).forEach( b => b.addEventListener( 'click', () => state.setLang( b.dataset.lang ) ) );
	byId( 'north' ).addEventListener( 'click', north );
	frame();

}

start();
